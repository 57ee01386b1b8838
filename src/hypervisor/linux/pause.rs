//! Asks a hypervisor to let its guest stand still, or go on, by each hypervisor's own means.

use crate::hypervisor::Control;
use crate::model::record::Order;

/// docs/interop/qemu-qmp-ref of QEMU: what ends a migration, if there is one.
const QMP_GIVE_UP: &str = "{\"execute\":\"migrate_cancel\"}\n{\"execute\":\"cont\"}\n";
/// docs/interop/qemu-qmp-ref of QEMU.
const QMP: [&str; 2] = ["{\"execute\":\"stop\"}\n", "{\"execute\":\"cont\"}\n"];
/// docs/api.md of Cloud Hypervisor.
const CLOUD_HYPERVISOR: [&str; 2] = [
    "PUT /api/v1/vm.pause HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\r\n",
    "PUT /api/v1/vm.resume HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\r\n",
];
/// docs/api_requests/pause-and-resume (src/firecracker/swagger/firecracker.yaml, `Vm`) of
/// Firecracker.
const FIRECRACKER: [&str; 2] = [
    "PATCH /vm HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\
     Content-Type: application/json\r\nContent-Length: 18\r\n\r\n{\"state\":\"Paused\"}",
    "PATCH /vm HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\
     Content-Type: application/json\r\nContent-Length: 19\r\n\r\n{\"state\":\"Resumed\"}",
];

/// What is written to its control socket for this part of an order. `None` if the order has no such
/// part, or this hypervisor has no way to be asked.
pub(super) fn words(control: &Control, order: Order) -> Option<&'static str> {
    let [pause, resume] = match control {
        Control::Qmp(_) => QMP,
        Control::CloudHypervisor(_) => CLOUD_HYPERVISOR,
        Control::Firecracker(_) => FIRECRACKER,
        Control::Terminate => return None,
    };
    match order {
        Order::GiveUpSnapshot if matches!(control, Control::Qmp(_)) => Some(QMP_GIVE_UP),
        // The others save a guest in one step, which ends before the next begins.
        Order::GiveUpSnapshot => Some(resume),
        Order::Pause => Some(pause),
        Order::Resume | Order::WakeAndPowerOff => Some(resume),
        Order::PowerOff => None,
    }
}
