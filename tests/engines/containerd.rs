//! containerd, driven by `ctr` and by the interface that Kubernetes uses (CRI).

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::common::eventually;
use crate::machine::{IMAGE, Machine, SERVE};

/// Its socket, where `ctr` looks for it.
const SOCKET: &str = "/run/containerd/containerd.sock";
/// The file with the number of its process in the room.
const PID: &str = "/run/containerd.pid";
/// How often it is asked to end a pod, and by how much each pause is longer than the last.
const TRIES: u32 = 6;
const PAUSE: Duration = Duration::from_millis(200);

/// The interface of a containerd that runs.
pub(crate) struct Cri {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

/// Starts containerd, and waits until it answers. A template of a configuration is one in which it
/// puts the addresses of pods, once it is told of them.
pub(crate) fn start(machine: &Machine, template: Option<&Path>) {
    let root = machine.daemon.folder.join("containerd");
    let template = template.map_or(String::new(), |path| path.display().to_string());
    // A test may run without the right to give a process a better score for the OOM killer.
    let settings = format!(
        r#"
        version = 2
        root = "{}"
        disabled_plugins = ["io.containerd.internal.v1.opt"]
        [plugins."io.containerd.grpc.v1.cri"]
        sandbox_image = "{IMAGE}"
        restrict_oom_score_adj = true
        disable_apparmor = true
        [plugins."io.containerd.grpc.v1.cri".cni]
        conf_template = "{template}"
        "#,
        root.display()
    );
    let file = machine.daemon.folder.join("containerd.toml");
    fs::write(&file, settings).expect("a configuration");
    let log = machine.daemon.folder.join("containerd.log");
    let (file, log) = (file.display(), log.display());
    let script = format!("containerd -c {file} >>{log} 2>&1 & echo $! >{PID}");
    let begun = machine.command("sh").args(["-c", &script]).stdin(Stdio::null()).status();
    assert!(begun.expect("nsenter starts").success());
    eventually("containerd answers", || machine.try_run("ctr version").0);
}

/// Kills it. Its containers run on.
pub(crate) fn crash(machine: &Machine) {
    let pid = fs::read_to_string(PID).expect("it runs");
    machine.run(&format!("kill -9 {}", pid.trim()));
}

/// Gives it the image, for `ctr` or for Kubernetes.
pub(crate) fn import(machine: &Machine, namespace: &str) {
    machine.run(&format!("ctr -n {namespace} image import {}", machine.image().display()));
}

impl Cri {
    /// The interface, after it was given the image.
    pub(crate) fn new(machine: &Machine) -> Cri {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
        let python = folder.join("build/cri/bin/python3");
        assert!(python.exists(), "run scripts/cri-client.sh first");
        let mut child = machine
            .command(python.to_str().expect("a path"))
            .arg(folder.join("tests/engines/cri.py"))
            .arg(SOCKET)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("nsenter starts");
        let input = child.stdin.take().expect("a pipe");
        let output = BufReader::new(child.stdout.take().expect("a pipe"));
        Cri { child, input, output }
    }

    /// Calls a method with all of these requests at once, and gives the answers in their order.
    pub(crate) fn call_all(&mut self, method: &str, requests: &[Value]) -> Vec<Value> {
        writeln!(self.input, "{}", json!([method, requests])).expect("it reads");
        let mut line = String::new();
        self.output.read_line(&mut line).expect("it answers");
        serde_json::from_str(&line).expect("JSON")
    }

    /// Calls a method, which must succeed.
    pub(crate) fn call(&mut self, method: &str, request: Value) -> Value {
        let answer = self.call_all(method, &[request]).remove(0);
        assert!(answer["error"].is_null(), "{method}: {answer}");
        answer
    }

    /// Starts a pod, and gives its id.
    pub(crate) fn start_pod(&mut self, config: &Value) -> String {
        let answer = self.call("RunPodSandbox", json!({ "config": config }));
        answer["pod_sandbox_id"].as_str().expect("an id").into()
    }

    /// Starts a container that serves in a pod, and gives its id.
    pub(crate) fn serve(&mut self, pod: &str, config: &Value) -> String {
        let container = json!({
            "metadata": {"name": "c"}, "image": {"image": IMAGE}, "command": SERVE, "linux": {}
        });
        let request = json!({"pod_sandbox_id": pod, "config": container, "sandbox_config": config});
        let id = self.call("CreateContainer", request)["container_id"].take();
        self.call("StartContainer", json!({ "container_id": id }));
        id.as_str().expect("an id").into()
    }

    /// Whether a command in a container succeeds.
    pub(crate) fn can(&mut self, container: &str, line: &str) -> bool {
        let words: Vec<&str> = line.split(' ').collect();
        let request = json!({ "container_id": container, "cmd": words, "timeout": 20 });
        let answer = self.call("ExecSync", request);
        answer["exit_code"].as_i64().unwrap_or_default() == 0
    }

    /// The ids of all pods, whatever their state.
    pub(crate) fn pods(&mut self) -> Vec<Value> {
        let mut pods = self.call("ListPodSandbox", json!({}));
        match pods["items"].take() {
            Value::Array(pods) => pods.into_iter().map(|mut pod| pod["id"].take()).collect(),
            _ => Vec::new(),
        }
    }

    /// Stops and removes pods, all at once. As kubelet does, it asks again for those of which
    /// containerd says that it could not: its process beside a pod may have ended just then.
    pub(crate) fn remove(&mut self, pods: &[Value]) {
        let requests: Vec<Value> = pods.iter().map(|id| json!({ "pod_sandbox_id": id })).collect();
        for method in ["StopPodSandbox", "RemovePodSandbox"] {
            let (mut left, mut failed) = (requests.clone(), Vec::new());
            for round in 0..TRIES {
                if left.is_empty() {
                    break;
                }
                std::thread::sleep(PAUSE * round);
                let answers = self.call_all(method, &left);
                let asked = left.into_iter().zip(answers);
                let again = asked.filter(|(_, answer)| !answer["error"].is_null());
                (left, failed) = again.unzip();
            }
            assert!(failed.is_empty(), "{method}: {failed:?}");
        }
    }
}

impl Drop for Cri {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A pod, as Kubernetes describes it.
pub(crate) fn pod(name: &str) -> Value {
    let metadata = json!({"name": name, "uid": format!("uid-{name}"), "namespace": "default"});
    json!({ "metadata": metadata, "linux": {} })
}
