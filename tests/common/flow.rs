//! Connections that say by which address they come.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use super::space::Space;

/// Tells whoever comes by TCP or UDP to a port by which address it comes; by TCP, sends everything
/// back that follows. It ends with its input.
const SERVER: &str = r#"
import socket, sys, threading
port = int(sys.argv[1])
def known_as(address):
    return (address[0].removeprefix("::ffff:") + "\n").encode()
def serve(peer, address):
    peer.sendall(known_as(address))
    while data := peer.recv(4096):
        peer.sendall(data)
def tcp():
    server = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)
    while True:
        threading.Thread(target=serve, args=server.accept(), daemon=True).start()
def udp():
    while True:
        _, address = server.recvfrom(4096)
        server.sendto(known_as(address), address)
threading.Thread(target=tcp, daemon=True).start()
server = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
server.bind(("::", port))
threading.Thread(target=udp, daemon=True).start()
print("ready", flush=True)
sys.stdin.read()
"#;

/// Prints what the server says first, and then for each line of its input what comes back.
const CLIENT: &str = r#"
import socket, sys
protocol, address, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
try:
    if protocol == "tcp":
        server = socket.create_connection((address, port), 1.5)
    else:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        server = socket.socket(family, socket.SOCK_DGRAM)
        server.settimeout(1.5)
        server.connect((address, port))
        server.send(b"hello\n")
    print(server.recv(4096).decode().strip(), flush=True)
    for line in sys.stdin:
        server.sendall(line.encode())
        print(server.recv(4096).decode().strip() or "end", flush=True)
except OSError as error:
    print("gone:", error, flush=True)
"#;

/// A process that ends with the value.
pub(crate) struct Running(pub(crate) Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A connection that was made.
pub(crate) struct Flow {
    _client: Running,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
    /// The address that the server says it comes by; `None` if there was no answer.
    pub(crate) known_as: Option<String>,
    /// What its client said first.
    pub(crate) said: String,
}

impl Flow {
    /// From a namespace, or from the host.
    pub(crate) fn open(from: Option<&Space>, protocol: &str, address: &str, port: u16) -> Flow {
        let mut command = python(from);
        let mut client = command
            .args(["-c", CLIENT, protocol, address, &port.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 runs");
        let to = client.stdin.take().expect("a pipe");
        let from = BufReader::new(client.stdout.take().expect("a pipe"));
        let mut flow =
            Flow { _client: Running(client), to, from, known_as: None, said: String::new() };
        flow.said = flow.line();
        flow.known_as = Some(flow.said.clone()).filter(|line| !line.starts_with("gone"));
        flow
    }

    /// What comes back of a line.
    pub(crate) fn echo(&mut self, text: &str) -> String {
        let _ = writeln!(self.to, "{text}");
        self.line()
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.from.read_line(&mut line).expect("text");
        line.trim().into()
    }
}

pub(crate) fn python(space: Option<&Space>) -> Command {
    space.map_or_else(|| Command::new("python3"), |space| space.command("python3"))
}

/// By which address a server says that it is reached.
pub(crate) fn ask(
    from: Option<&Space>,
    protocol: &str,
    address: &str,
    port: u16,
) -> Option<String> {
    Flow::open(from, protocol, address, port).known_as
}

pub(crate) fn serve(space: &Space, port: u16) -> Running {
    let mut child = python(Some(space))
        .args(["-c", SERVER, &port.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 runs");
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().expect("a pipe")).read_line(&mut line).expect("text");
    assert_eq!(line, "ready\n");
    Running(child)
}
