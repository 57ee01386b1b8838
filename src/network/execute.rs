//! Runs plans.
//!
//! [`execute`] is all or nothing: it is for changes that a client waits for and that may fail.
//! [`execute_all`] does as much as possible: it is for cleaning and repair, where one failure must
//! not stop the other steps.
//!
//! Each change of the kernel is logged with the request that it is made for, if there is one.

use log::{debug, error};

use super::{Applied, Network};
use crate::model::error::{Failure, KernelOutcome};
use crate::model::request::Serving;
use crate::plan::op::Op;

/// Applies a plan in order. If an Op fails, the Ops before it are undone in reverse order, and the
/// failure is returned. If an undo fails as well, it is logged and the others still run. The
/// failure of an Op that can wait is only logged.
pub fn execute(
    network: &mut dyn Network,
    plan: &[Op],
    serving: Serving,
) -> Result<Vec<Applied>, Failure> {
    let mut done = Vec::with_capacity(plan.len());
    for op in plan {
        match apply(network, op, serving) {
            Ok(applied) => done.push(applied),
            Err(failure) if op.can_wait() => {
                error!(id:% = serving; "{failure}; continuing without it");
                done.push(Applied::default());
            }
            Err(failure) => {
                if is_open(op, &failure) {
                    undo_one(network, op, None, serving);
                }
                undo(network, plan, &done, serving);
                return Err(failure);
            }
        }
    }
    Ok(done)
}

/// Applies every Op of a plan, even if others fail. Returns the results in the order of the plan.
/// Failures are logged.
pub fn execute_all(
    network: &mut dyn Network,
    plan: &[Op],
    serving: Serving,
) -> Vec<Result<Applied, Failure>> {
    let tell = |failure: &Failure| {
        error!(id:% = serving; "{failure}; continuing with the rest");
    };
    let apply = |op| apply(network, op, serving).inspect_err(tell);
    plan.iter().map(apply).collect()
}

/// Undoes the first Ops of a plan, whose results are in `done`, in reverse order. It is for a plan
/// that succeeded but is no longer wanted. Failures are logged.
pub fn undo(network: &mut dyn Network, plan: &[Op], done: &[Applied], serving: Serving) {
    for (op, applied) in plan.iter().zip(done).rev() {
        undo_one(network, op, applied.ifindex, serving);
    }
}

/// Applies an Op; once more where its answer was lost and that does no harm.
fn apply(network: &mut dyn Network, op: &Op, serving: Serving) -> Result<Applied, Failure> {
    let mut result = network.apply(op);
    if result.as_ref().is_err_and(is_unknown) && op.is_repeatable() {
        result = network.apply(op);
    }
    match &result {
        Ok(_) => {
            let (operation, object) = op.describe();
            debug!(id:% = serving; "{operation} {object}");
        }
        Err(failure) => debug!(id:% = serving; "{failure}"),
    }
    result
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

fn undo_one(network: &mut dyn Network, op: &Op, made: Option<u32>, serving: Serving) {
    let undone = op.undo(made).map(|undo| apply(network, &undo, serving));
    if let Some(Err(failure)) = undone {
        error!(id:% = serving; "while undoing: {failure}; continuing with the rest");
    }
}

#[cfg(test)]
mod tests;
