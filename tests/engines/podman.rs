//! podman with plugins in place of its own network stack. It has no daemon.

use std::fs;
use std::process::Command;

use crate::machine::Machine;

/// podman, with the files of a machine.
pub(crate) struct Podman<'a>(&'a Machine);

impl Podman<'_> {
    /// podman, after it was given the image.
    pub(crate) fn new(machine: &Machine) -> Podman<'_> {
        let podman = Podman(machine);
        // A test may run without the right to raise limits, and below control groups of both
        // versions, with which crun does not work.
        let settings = r#"
            [containers]
            default_ulimits = ["nofile=1024:1024", "nproc=1000:1000"]
            log_driver = "k8s-file"
            [network]
            network_backend = "cni"
            cni_plugin_dirs = ["/opt/cni/bin"]
            network_config_dir = "/etc/cni/net.d"
            default_network = "pods"
            [engine]
            runtime = "runc"
            cgroup_manager = "cgroupfs"
            events_logger = "file"
        "#;
        let graph = machine.daemon.folder.join("podman");
        let storage = format!(
            "[storage]\ndriver = \"overlay\"\ngraphroot = \"{}\"\nrunroot = \"/run/containers\"\n",
            graph.display()
        );
        fs::write(machine.daemon.folder.join("containers.conf"), settings).expect("a file");
        fs::write(machine.daemon.folder.join("storage.conf"), storage).expect("a file");
        podman.run(&format!("load -q -i {}", machine.image().display()));
        podman
    }

    fn command(&self, line: &str) -> Command {
        let folder = &self.0.daemon.folder;
        let mut command = self.0.command("podman");
        command
            .env("CONTAINERS_CONF", folder.join("containers.conf"))
            .env("CONTAINERS_STORAGE_CONF", folder.join("storage.conf"))
            .args(line.split_ascii_whitespace());
        command
    }

    /// Runs a command line of podman, and says whether it succeeded and what it printed.
    pub(crate) fn try_run(&self, line: &str) -> (bool, String) {
        let output = self.command(line).output().expect("nsenter runs");
        let errors = String::from_utf8_lossy(&output.stderr);
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned() + &errors)
    }

    /// Runs one that must succeed.
    pub(crate) fn run(&self, line: &str) -> String {
        let (done, printed) = self.try_run(line);
        assert!(done, "podman {line}: {printed}");
        printed
    }
}
