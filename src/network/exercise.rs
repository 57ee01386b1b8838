//! Bodies of fuzz targets: each takes any bytes, and panics where this module breaks a promise.

mod asked;
mod check;
mod world;

use crate::exercise::Choices;
use world::World;

/// Any requests reach the engine, any of its decisions fail, processes end, guests ask for
/// addresses, time passes, and the daemon or the host restarts. The kernel in memory always agrees
/// with the engine, nothing has two owners, and every caller is answered once.
pub fn engine(bytes: &[u8]) {
    let mut world = World::new(Choices::new(bytes));
    while world.step() {
        check::all(&world);
    }
    world.come_to_rest();
    check::all(&world);
}
