//! Runs plans.
//!
//! [`execute`] is all or nothing: it is for changes that a client waits for and that may fail.
//! [`execute_all`] does as much as possible: it is for cleaning and repair, where one failure must
//! not stop the other steps.

use log::error;

use super::{Applied, Network};
use crate::model::error::{Failure, KernelOutcome};
use crate::plan::op::Op;

/// Applies a plan in order. If an Op fails, the Ops before it are undone in reverse order, and the
/// failure is returned. If an undo fails as well, it is logged and the others still run. The
/// failure of an Op that can wait is only logged.
pub fn execute(network: &mut dyn Network, plan: &[Op]) -> Result<Vec<Applied>, Failure> {
    let mut done = Vec::with_capacity(plan.len());
    for op in plan {
        match apply(network, op) {
            Ok(applied) => done.push(applied),
            Err(failure) if op.can_wait() => {
                error!("{failure}; continuing without it");
                done.push(Applied::default());
            }
            Err(failure) => {
                if is_open(op, &failure) {
                    undo_one(network, op, None);
                }
                undo(network, plan, &done);
                return Err(failure);
            }
        }
    }
    Ok(done)
}

/// Applies every Op of a plan, even if others fail. Returns the results in the order of the plan.
/// Failures are logged.
pub fn execute_all(network: &mut dyn Network, plan: &[Op]) -> Vec<Result<Applied, Failure>> {
    let apply = |op| {
        apply(network, op).inspect_err(|failure| error!("{failure}; continuing with the rest"))
    };
    plan.iter().map(apply).collect()
}

/// Undoes the first Ops of a plan, whose results are in `done`, in reverse order. It is for a plan
/// that succeeded but is no longer wanted. Failures are logged.
pub fn undo(network: &mut dyn Network, plan: &[Op], done: &[Applied]) {
    for (op, applied) in plan.iter().zip(done).rev() {
        undo_one(network, op, applied.ifindex);
    }
}

/// Applies an Op; once more where its answer was lost and that does no harm.
fn apply(network: &mut dyn Network, op: &Op) -> Result<Applied, Failure> {
    match network.apply(op) {
        Err(failure) if is_unknown(&failure) && op.is_repeatable() => network.apply(op),
        result => result,
    }
}

fn is_unknown(failure: &Failure) -> bool {
    failure.outcome() == Some(KernelOutcome::Unknown)
}

/// Whether an Op that failed can have left something. A link that was to be made is not among that:
/// whoever makes it removes it, and what that leaves has no VM's name and is removed by the next
/// reconciliation; a link that has the name may be somebody else's.
fn is_open(op: &Op, failure: &Failure) -> bool {
    match op {
        // The only Op that the kernel can leave half done.
        Op::SetLink { .. } => true,
        Op::CreateBridge { .. } | Op::CreateTap { .. } | Op::CreateVeth { .. } => false,
        _ => is_unknown(failure),
    }
}

fn undo_one(network: &mut dyn Network, op: &Op, made: Option<u32>) {
    let undone = op.undo(made).map(|undo| apply(network, &undo));
    if let Some(Err(failure)) = undone {
        error!("while undoing: {failure}; continuing with the rest");
    }
}

#[cfg(test)]
mod tests;
