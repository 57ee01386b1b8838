//! Bodies of fuzz targets: each takes any bytes, and panics where this module breaks a promise.

mod asked;
mod check;
mod world;

use crate::exercise::Choices;
use world::World;

/// Whatever is asked of the engine, whichever of its decisions cannot be carried out, and whenever
/// processes end, guests ask for addresses, time passes, or the daemon or the host starts anew: the
/// kernel in memory holds what the engine thinks, nothing has two owners, and every caller is
/// answered, once.
pub fn engine(bytes: &[u8]) {
    let mut world = World::new(Choices::new(bytes));
    while world.step() {
        check::all(&world);
    }
    world.come_to_rest();
    check::all(&world);
}
