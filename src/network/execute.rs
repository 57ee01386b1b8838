//! Runs plans.
//!
//! [`execute`] is all or nothing: it is for changes that somebody waits for and that may fail.
//! [`execute_all`] gets as far as it can: it is for cleaning and repair, where one thing that
//! cannot be mended must not keep the others from it.

use log::error;

use super::{Applied, Network};
use crate::engine::plan::Op;
use crate::error::Failure;

/// Applies a plan in order. When one Op fails, what was done is undone in reverse order and the
/// failure returned; an undo that fails as well is logged and the others still run.
pub fn execute(network: &mut dyn Network, plan: &[Op]) -> Result<Vec<Applied>, Failure> {
    let mut done = Vec::with_capacity(plan.len());
    for op in plan {
        match network.apply(op) {
            Ok(applied) => done.push(applied),
            Err(failure) => {
                // The one Op that the kernel can leave half done.
                if let Op::SetLink { .. } = op {
                    undo_one(network, op, None);
                }
                undo(network, plan, &done);
                return Err(failure);
            }
        }
    }
    Ok(done)
}

/// Applies every Op of a plan, whatever becomes of the others. The results stand in the order of
/// the plan; failures are logged.
pub fn execute_all(network: &mut dyn Network, plan: &[Op]) -> Vec<Result<Applied, Failure>> {
    let apply =
        |op| network.apply(op).inspect_err(|failure| error!("{failure}; going on with the rest"));
    plan.iter().map(apply).collect()
}

/// Takes back the first Ops of a plan, those that `done` holds the results of, in reverse order: for
/// a plan that is whole but whose reason has gone. Failures are logged.
pub fn undo(network: &mut dyn Network, plan: &[Op], done: &[Applied]) {
    for (op, applied) in plan.iter().zip(done).rev() {
        undo_one(network, op, applied.ifindex);
    }
}

fn undo_one(network: &mut dyn Network, op: &Op, made: Option<u32>) {
    let undone = op.undo(made).map(|undo| network.apply(&undo));
    if let Some(Err(failure)) = undone {
        error!("while undoing: {failure}; going on with the rest");
    }
}

#[cfg(test)]
mod tests;
