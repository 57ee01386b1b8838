//! Answers to questions for names, beside dnsmasq with the same names.
//!
//! The benchmark asks as the host does, in a namespace of each, and keeps [`IN_FLIGHT`] questions
//! on their way: so who answers is never without work.

use std::fs;
use std::net::{Ipv4Addr, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use volnet::dns::wire::{A, Header, IN, Question};
use volnet::dns::{DomainName, ResponseCode};

use crate::daemon::Daemon;
use crate::floor::ipv4;
use crate::record::Record;
use crate::stage::{Stage, run};
use crate::{BUILD, SUBNET};

/// Questions that are on their way.
const IN_FLIGHT: usize = 64;
/// Questions that are not measured.
const WARM: usize = 1000;
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);
const WHAT: &str = "answers about names";

/// Measures both, with the names of so many VMs.
pub(crate) fn measure(daemon: &Daemon, vms: usize, questions: usize, record: &mut Record) {
    daemon.stage.enter();
    record.value(WHAT, "volnet", Some(vms), rate(vms, questions), "a second");
    match Dnsmasq::start(vms) {
        Some(_dnsmasq) => {
            record.value(WHAT, "dnsmasq", Some(vms), rate(vms, questions), "a second");
        }
        None => record.missing(WHAT, "dnsmasq", "dnsmasq is not installed"),
    }
}

/// Answers a second about all VMs in turn.
fn rate(vms: usize, questions: usize) -> f64 {
    let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
    socket.connect((ipv4().host, 53)).expect("an address of this host");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let asked: Vec<Vec<u8>> = (0..vms).map(question).collect();
    let ask = |number: usize| {
        socket.send(&asked[number % vms]).expect("to ask");
    };
    let answer = || {
        let mut buffer = [0; 512];
        let length = socket.recv(&mut buffer).expect("an answer");
        let header = Header::read(&buffer[..length]).expect("a message");
        let answered = ResponseCode::Answered as u16;
        assert_eq!((header.flags & 0xf, header.counts[1]), (answered, 1), "an address");
    };
    (0..IN_FLIGHT).for_each(ask);
    for number in 0..WARM {
        answer();
        ask(number);
    }
    let start = Instant::now();
    for number in 0..questions {
        answer();
        ask(number);
    }
    // The last answers are not waited for: a datagram can be lost.
    questions as f64 / start.elapsed().as_secs_f64()
}

fn question(vm: usize) -> Vec<u8> {
    let name = DomainName::of_text(&name(vm)).expect("a name");
    let mut message = Header { id: vm as u16, flags: 0x0100, counts: [1, 0, 0, 0] }.write();
    message.extend(Question { name, kind: A, class: IN }.bytes());
    message
}

fn name(vm: usize) -> String {
    format!("vm{vm}.volnet")
}

/// dnsmasq in a namespace of its own, where this thread is from then on.
struct Dnsmasq(Child);

impl Dnsmasq {
    /// `None` if there is no such program.
    fn start(vms: usize) -> Option<Dnsmasq> {
        let stage = Stage::new("dnsmasq-names");
        stage.enter();
        let (gateway, length) = (ipv4().host, SUBNET.split_once('/').expect("a prefix").1);
        run("ip link add vbr0 type bridge");
        run(&format!("ip addr add {gateway}/{length} dev vbr0"));
        run("ip link set vbr0 up");
        let lines = (0..vms).map(|vm| {
            let ip = Ipv4Addr::from_bits(gateway.to_bits() + 1 + vm as u32);
            format!("{ip} {}\n", name(vm))
        });
        let hosts = format!("{BUILD}/bench/hosts");
        fs::write(&hosts, lines.collect::<String>()).expect("a file of names");
        // dnsmasq changes its directory before it reads the file.
        let hosts = fs::canonicalize(hosts).expect("the file");
        let flags = ["--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts"];
        let mut command = Command::new("dnsmasq");
        command.args(flags).arg(format!("--addn-hosts={}", hosts.display())).args([
            "--user=root",
            "--pid-file",
            "--bind-interfaces",
        ]);
        command.arg(format!("--listen-address={gateway}"));
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().ok()?;
        let dnsmasq = Dnsmasq(child);
        let deadline = Instant::now() + PATIENCE;
        while !run("ss -Htln").contains(&format!("{gateway}:53")) {
            assert!(Instant::now() < deadline, "dnsmasq does not listen");
        }
        Some(dnsmasq)
    }
}

impl Drop for Dnsmasq {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
