//! From the command line to an [`Invocation`], or to what is wrong with it.
//!
//! Verbs and flags stand in [`super::verbs`], settings in [`crate::config::KEYS`]. What a verb does
//! not have is refused: a flag that does nothing would be a lie.

use std::ffi::OsString;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

use lexopt::{Arg, Parser, ValueExt};
use serde_json::{Value, json};

use crate::config::{CLIENT_KEYS, Flags, KEYS, Key};
use crate::model::expose::Protocol;
use crate::model::nic::NICS_MAX;
use crate::model::request::TRACE_SECONDS_MAX;
use crate::protocol::request::{MANY_MAX, STOP_TIMEOUT_MAX_MS};

use super::command::{
    Attach, Command, Create, Detach, Disk, Invocation, Origin, Override, Preparation, Setting,
    Share, VmVerb, Vms,
};
use super::completion;
use super::verbs::{self, Flag, Kind, LIMITS, SORTS, Settings, Sort, Verb};

/// How the daemon starts a hypervisor; no verb of people.
const EXEC_AS: &str = "exec-as";
/// How it starts the keeper of a log; no verb of people.
const KEEP_LOG: &str = "keep-log";

/// The longest time between two pictures of `top`: an hour.
const INTERVAL_MAX_S: u64 = 3600;
/// The link of an attachment, if no other name is given.
const IFNAME: &str = "eth0";

/// A command line that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Usage {
    /// What is wrong with it.
    pub(super) reason: String,
    /// The verb whose help would help.
    pub(super) verb: Option<String>,
}

/// Why reading stops before the end.
enum Stop {
    Help,
    Version,
    Wrong(String),
}

/// A command line that is being read.
struct Line {
    parser: Parser,
    flags: Flags,
    json: bool,
}

/// What stands behind a verb.
struct Given {
    words: Vec<String>,
    options: Vec<(&'static Flag, String)>,
}

/// Understands a command line; the first of `argv` is the program's own name.
pub(super) fn parse(argv: impl IntoIterator<Item = OsString>) -> Result<Invocation, Usage> {
    let argv: Vec<OsString> = argv.into_iter().collect();
    let mut line = Line { parser: Parser::from_iter(argv), flags: Flags::default(), json: false };
    let mut verb: Option<&'static Verb> = None;
    let outcome = line.command(&mut verb);
    let command = match outcome {
        Ok(command) => command,
        Err(Stop::Help) => Command::Help { verb: verb.map(|verb| verb.name.into()) },
        Err(Stop::Version) => Command::Version,
        Err(Stop::Wrong(reason)) => {
            return Err(Usage { reason, verb: verb.map(|verb| verb.name.into()) });
        }
    };
    Ok(Invocation { flags: line.flags, json: line.json, command })
}

impl Line {
    fn command(&mut self, found: &mut Option<&'static Verb>) -> Result<Command, Stop> {
        let name = match self.next(&CLIENT_KEYS)? {
            None => return Err(wrong("no verb is given")),
            Some(Item::Option(option)) if option == "version" => return Err(Stop::Version),
            Some(Item::Option(option)) => return Err(unknown(&option)),
            Some(Item::Word(word)) => word,
        };
        if name == EXEC_AS {
            return Ok(Command::ExecAs { words: self.rest(&[], Vec::new())?.words });
        }
        if name == KEEP_LOG {
            return Ok(Command::KeepLog { words: self.rest(&[], Vec::new())?.words });
        }
        let verb = verbs::of(&name).ok_or_else(|| wrong(format!("there is no verb {name:?}")))?;
        *found = Some(verb);
        let given = self.given(verb)?;
        if self.json && verb.json.is_none() {
            return Err(unknown("json"));
        }
        command(verb.name, given)
    }

    /// All that follows a verb.
    fn given(&mut self, verb: &Verb) -> Result<Given, Stop> {
        let keys: &[Key] = match verb.settings {
            Settings::None => &[],
            Settings::Client => &CLIENT_KEYS,
            Settings::All => &KEYS,
        };
        self.rest(keys, verb.flags().collect())
    }

    /// All that follows, of which these flags may be part.
    fn rest(&mut self, keys: &[Key], flags: Vec<&'static Flag>) -> Result<Given, Stop> {
        let mut given = Given { words: Vec::new(), options: Vec::new() };
        while let Some(item) = self.next(keys)? {
            let name = match item {
                Item::Word(word) => {
                    given.words.push(word);
                    continue;
                }
                Item::Option(name) => name,
            };
            let known = flags.iter().find(|flag| flag.name == name);
            let flag = known.ok_or_else(|| unknown(&name))?;
            let value = if flag.value.is_some() { self.value()? } else { String::new() };
            given.options.push((flag, value));
        }
        Ok(given)
    }

    /// The next word, or the next option that is neither of all verbs nor a setting of `keys`.
    fn next(&mut self, keys: &[Key]) -> Result<Option<Item>, Stop> {
        loop {
            let name = match self.parser.next()? {
                None => return Ok(None),
                Some(Arg::Value(word)) => return Ok(Some(Item::Word(word.string()?))),
                Some(Arg::Short('h')) => "help".to_owned(),
                Some(Arg::Short('f')) => "follow".to_owned(),
                Some(Arg::Short('V')) => "version".to_owned(),
                Some(Arg::Short(short)) => return Err(wrong(format!("unknown option -{short}"))),
                Some(Arg::Long(name)) => name.to_owned(),
            };
            let flag = keys.iter().filter_map(|key| key.flag).find(|flag| **flag == *name);
            match (name.as_str(), flag) {
                ("help", _) => return Err(Stop::Help),
                ("json", _) => self.json = true,
                (_, Some(flag)) => {
                    let value = self.value()?;
                    self.flags.set(flag, value);
                }
                (_, None) => return Ok(Some(Item::Option(name))),
            }
        }
    }

    fn value(&mut self) -> Result<String, Stop> {
        Ok(self.parser.value()?.string()?)
    }
}

/// What a verb comes to, with what stands behind it.
fn command(verb: &str, mut given: Given) -> Result<Command, Stop> {
    match verb {
        "serve" => given.none().map(|()| Command::Serve),
        "setup" => preparation(given).map(Command::Setup),
        "teardown" => preparation(given).map(|how| {
            let resolved = how.resolved || how.service;
            Command::Teardown(Preparation { resolved, ..how })
        }),
        "create" => Ok(Command::Create(Box::new(create(given, false)?))),
        "run" => Ok(Command::Create(Box::new(create(given, true)?))),
        "attach" => attach(given),
        "detach" => detach(given),
        "start" => change(given, VmVerb::Start),
        "stop" => change(given, VmVerb::Stop),
        "restart" => change(given, VmVerb::Restart),
        "pause" => change(given, VmVerb::Pause),
        "resume" => change(given, VmVerb::Resume),
        "delete" => change(given, VmVerb::Delete),
        "snapshot" => {
            let (name, folder) = given.two("NAME", "DIRECTORY")?;
            Ok(Command::Snapshot { name, folder: folder.into() })
        }
        "expose" => expose(given),
        "unexpose" => unexpose(given),
        "policy" => policy(given),
        "limit" => limit(given),
        "get" => Ok(Command::Get { name: given.one("NAME")? }),
        "list" => {
            let watch = given.has("watch");
            given.none().map(|()| Command::List { watch })
        }
        "top" => top(given),
        "networks" => given.none().map(|()| Command::Networks),
        "args" => {
            let hypervisor = given.last("hypervisor");
            let kernel_args = given.has("kernel-args");
            Ok(Command::Args { name: given.one("NAME")?, hypervisor, kernel_args })
        }
        "exec" => exec(given),
        "call" => call(given),
        "console" => Ok(Command::Console { name: given.one("NAME")? }),
        "vsock" => vsock(given),
        "logs" => {
            let (messages, follow) = (given.has("messages"), given.has("follow"));
            Ok(Command::Logs { name: given.one("NAME")?, messages, follow })
        }
        "monitor" => given.none().map(|()| Command::Monitor),
        "metrics" => given.none().map(|()| Command::Metrics),
        "check" => given.none().map(|()| Command::Check),
        "trace" => trace(given),
        "doctor" => Ok(Command::Doctor { name: given.at_most_one()? }),
        "version" => given.none().map(|()| Command::Version),
        "completion" => {
            let shell = given.one("the shell")?;
            match completion::of(&shell) {
                Some(_) => Ok(Command::Completion { shell }),
                None => Err(wrong(format!("{shell:?} is not bash, zsh or fish"))),
            }
        }
        "help" => explain(given),
        other => Err(wrong(format!("there is no verb {other:?}"))),
    }
}

fn top(mut given: Given) -> Result<Command, Stop> {
    let once = given.has("once");
    let interval_s = match given.last("interval") {
        None => 1,
        Some(text) => match text.parse() {
            Ok(seconds @ 1..=INTERVAL_MAX_S) => seconds,
            _ => {
                let reason = format!("{text:?} is not a number of seconds, 1 to {INTERVAL_MAX_S}");
                return Err(wrong(reason));
            }
        },
    };
    let word = given.last("sort").unwrap_or_else(|| "received".into());
    let sort = Sort::of(&word)
        .ok_or_else(|| wrong(format!("{word:?} is none of {}", SORTS.join(", "))))?;
    given.none().map(|()| Command::Top { once, interval_s, sort })
}

fn preparation(mut given: Given) -> Result<Preparation, Stop> {
    let root = given.last("root").map(PathBuf::from);
    if root.is_some() && !["service", "cni", "resolved"].iter().any(|it| given.has(it)) {
        return Err(wrong("--root needs --service, --cni or --resolved"));
    }
    let preparation = Preparation {
        dry_run: given.has("dry-run"),
        verbose: given.has("verbose"),
        force: given.has("force"),
        service: given.has("service"),
        cni: given.has("cni"),
        resolved: given.has("resolved"),
        root: root.unwrap_or_else(|| "/".into()),
    };
    given.none().map(|()| preparation)
}

fn create(mut given: Given, start: bool) -> Result<Create, Stop> {
    let (mut overrides, mut disks, mut expose) = (Vec::new(), Vec::new(), Vec::new());
    let (mut args, mut shares) = (Vec::new(), Vec::new());
    // Each `--network` after the first begins another NIC; what follows is about that one.
    let (mut named, mut nic) = (false, 0);
    for (flag, text) in &given.options {
        if flag.name == "network" {
            nic += usize::from(std::mem::replace(&mut named, true));
        }
        match (flag.name, flag.field) {
            ("disk", _) => disks.push(disk(text)?),
            ("arg", _) => args.push(text.clone()),
            ("share", _) => shares.push(share(text)?),
            ("expose", _) => expose.push((nic, exposed(text)?)),
            (name, Some(field)) => {
                let value = setting(name, text.clone(), field.kind)?;
                overrides.push(Override { nic, section: field.section, field: field.name, value });
            }
            (_, None) => {}
        }
    }
    let count = given.last("count").map(|text| match text.parse() {
        Ok(count @ 1..=MANY_MAX) => Ok(count),
        Ok(_) | Err(_) => Err(wrong(format!("--count: {text:?} is not 1 to {MANY_MAX} VMs"))),
    });
    let count = count.transpose()?;
    if count.is_some() && given.has("dry-run") {
        return Err(wrong("--count does not go with --dry-run"));
    }
    Ok(Create {
        args,
        expose,
        count,
        manifest: given.last("manifest").map(PathBuf::from),
        config: given.last("config").map(PathBuf::from),
        dry_run: given.has("dry-run"),
        name: given.one("NAME")?,
        overrides,
        disks,
        shares,
        start,
    })
}

fn attach(mut given: Given) -> Result<Command, Stop> {
    let netns = given.last("netns").ok_or_else(|| wrong("--netns is missing"))?;
    let ifname = given.last("ifname").unwrap_or_else(|| IFNAME.into());
    let (force, tap) = (given.has("force"), given.last("tap"));
    if given.has("owner") && tap.is_none() {
        return Err(wrong("--owner needs --tap: a pair of links has no owner"));
    }
    let create = create(given, false)?;
    Ok(Command::Attach(Box::new(Attach { create, netns, ifname, tap, force })))
}

fn detach(mut given: Given) -> Result<Command, Stop> {
    let netns = given.last("netns");
    let ifname = given.last("ifname").unwrap_or_else(|| IFNAME.into());
    Ok(Command::Detach(Detach { name: given.one("NAME")?, ifname, netns }))
}

fn seconds(given: &mut Given, flag: &str) -> Result<Option<u32>, Stop> {
    let number = |text: String| {
        text.parse().map_err(|_| wrong(format!("{text:?} is not a number of seconds")))
    };
    given.last(flag).map(number).transpose()
}

fn change(mut given: Given, change: VmVerb) -> Result<Command, Stop> {
    let timeout_ms = match given.last("timeout") {
        None => None,
        Some(text) => match text.parse::<u64>() {
            Ok(seconds) if seconds <= STOP_TIMEOUT_MAX_MS / 1000 => Some(seconds * 1000),
            _ => {
                let most = STOP_TIMEOUT_MAX_MS / 1000;
                return Err(wrong(format!("--timeout: {text:?} is not 0 to {most} seconds")));
            }
        },
    };
    let vms = match (given.has("all"), given.words.is_empty()) {
        (true, true) => Vms::Running,
        (true, false) => return Err(wrong("--all: there is a NAME, too")),
        (false, true) => return Err(wrong("NAME is missing")),
        (false, false) => Vms::Named(given.words),
    };
    Ok(Command::VmVerb { change, vms, timeout_ms })
}

/// Each flag of a rate is the parameter that create's of the same name writes.
fn expose(mut given: Given) -> Result<Command, Stop> {
    let (nic, force) = (given.nic()?, given.has("force"));
    let (name, word) = given.two("NAME", "PORT")?;
    let mut parameters = exposed(&word)?;
    parameters["name"] = name.into();
    if force {
        parameters["force"] = true.into();
    }
    of_nic(&mut parameters, nic);
    Ok(Command::Adjust { method: "io.volnet.Expose", parameters })
}

fn unexpose(given: Given) -> Result<Command, Stop> {
    let (name, word) = given.two("NAME", "PORT")?;
    let mut parameters = exposed(&word)?;
    parameters["name"] = name.into();
    parameters.as_object_mut().expect("it is one").remove("port");
    Ok(Command::Adjust { method: "io.volnet.Unexpose", parameters })
}

fn policy(mut given: Given) -> Result<Command, Stop> {
    let nic = given.nic()?;
    let (name, policy) = given.two("NAME", "POLICY")?;
    let mut parameters = json!({ "name": name, "policy": policy });
    of_nic(&mut parameters, nic);
    Ok(Command::Adjust { method: "io.volnet.SetPolicy", parameters })
}

fn limit(mut given: Given) -> Result<Command, Stop> {
    let mut parameters = json!({});
    for (flag, text) in &given.options {
        let Some(field) = flag.field.filter(|field| field.section == Some(LIMITS)) else {
            continue;
        };
        if let Setting::Value(value) = setting(flag.name, text.clone(), field.kind)? {
            parameters[field.name] = value;
        }
    }
    if parameters == json!({}) {
        return Err(wrong("give at least one limit: --rx, --tx, --burst or --pps"));
    }
    of_nic(&mut parameters, given.nic()?);
    parameters["name"] = given.one("NAME")?.into();
    Ok(Command::Adjust { method: "io.volnet.SetLimits", parameters })
}

fn vsock(mut given: Given) -> Result<Command, Stop> {
    let wait = seconds(&mut given, "wait")?;
    let (name, port) = given.two("NAME", "PORT")?;
    let port = port.parse().map_err(|_| wrong(format!("{port:?} is not a port of vsock")))?;
    Ok(Command::Vsock { name, port, wait })
}

fn trace(mut given: Given) -> Result<Command, Stop> {
    let (from, to) = (given.last("from").map(Origin::of), given.last("to"));
    if to.is_some() && matches!(from, Some(Origin::Vm(_))) {
        return Err(wrong("--from says which VM sends packets, and NAME where to"));
    }
    let seconds = seconds(&mut given, "seconds")?;
    if let Some(seconds) = seconds.filter(|it| !(1..=TRACE_SECONDS_MAX).contains(it)) {
        return Err(wrong(format!("--seconds: {seconds} is not 1 to {TRACE_SECONDS_MAX}")));
    }
    Ok(Command::Trace { name: given.one("NAME")?, from, to, seconds })
}

fn exec(given: Given) -> Result<Command, Stop> {
    let mut words = given.words.into_iter();
    let name = words.next().ok_or_else(|| wrong("NAME is missing"))?;
    let program = words.next().ok_or_else(|| wrong("COMMAND is missing"))?;
    Ok(Command::Exec { name, program, args: words.collect() })
}

fn call(given: Given) -> Result<Command, Stop> {
    let more = given.has("more");
    let mut words = given.words.into_iter();
    let method = words.next().ok_or_else(|| wrong("METHOD is missing"))?;
    let parameters = words.next();
    match words.next() {
        Some(word) => Err(unexpected(&word)),
        None => Ok(Command::Call { method, parameters, more }),
    }
}

fn explain(given: Given) -> Result<Command, Stop> {
    let mut words = given.words.into_iter();
    let verb = words.next();
    match (&verb, words.next()) {
        (_, Some(word)) => Err(unexpected(&word)),
        (Some(verb), None) if verbs::of(verb).is_none() => {
            Err(wrong(format!("there is no verb {verb:?}")))
        }
        (_, None) => Ok(Command::Help { verb }),
    }
}

/// What comes next on a command line.
enum Item {
    Word(String),
    Option(String),
}

impl Given {
    fn has(&self, option: &str) -> bool {
        self.options.iter().any(|(flag, _)| flag.name == option)
    }

    /// The value of an option; the last where it is given more than once.
    fn last(&mut self, option: &str) -> Option<String> {
        let index = self.options.iter().rposition(|(flag, _)| flag.name == option)?;
        Some(std::mem::take(&mut self.options[index].1))
    }

    /// The NIC that is meant; `None`: none is named.
    fn nic(&mut self) -> Result<Option<usize>, Stop> {
        let Some(text) = self.last("nic") else { return Ok(None) };
        match text.parse() {
            Ok(index) if index < NICS_MAX => Ok(Some(index)),
            Ok(_) | Err(_) => {
                let most = NICS_MAX - 1;
                Err(wrong(format!("--nic: {text:?} is not the index of a NIC, 0 to {most}")))
            }
        }
    }

    fn none(self) -> Result<(), Stop> {
        match self.words.first() {
            None => Ok(()),
            Some(word) => Err(unexpected(word)),
        }
    }

    fn at_most_one(self) -> Result<Option<String>, Stop> {
        let mut words = self.words.into_iter();
        let word = words.next();
        words.next().map_or(Ok(word), |word| Err(unexpected(&word)))
    }

    fn two(self, first: &str, second: &str) -> Result<(String, String), Stop> {
        let mut words = self.words.into_iter();
        let one = words.next().ok_or_else(|| wrong(format!("{first} is missing")))?;
        let two = words.next().ok_or_else(|| wrong(format!("{second} is missing")))?;
        words.next().map_or(Ok((one, two)), |word| Err(unexpected(&word)))
    }

    fn one(self, what: &str) -> Result<String, Stop> {
        let mut words = self.words.into_iter();
        match (words.next(), words.next()) {
            (Some(word), None) => Ok(word),
            (None, _) => Err(wrong(format!("{what} is missing"))),
            (Some(_), Some(word)) => Err(unexpected(&word)),
        }
    }
}

fn setting(flag: &str, text: String, kind: Kind) -> Result<Setting, Stop> {
    Ok(match kind {
        Kind::Text => Setting::Value(Value::String(text)),
        Kind::Texts => Setting::Value(text.split(',').map(str::trim).collect()),
        Kind::Yes => Setting::Value(Value::Bool(true)),
        Kind::Path => Setting::Path(text.into()),
        Kind::Image => Setting::Image(text.into()),
        Kind::Owner => Setting::Value(owner(flag, &text)?),
        Kind::Inner => Setting::Value(inner(flag, &text)?),
        Kind::Number => match text.parse::<u64>() {
            Ok(number) => Setting::Value(number.into()),
            Err(_) => return Err(wrong(format!("--{flag}: {text:?} is not a whole number"))),
        },
    })
}

/// `UID[:GID]`, as the field `owner`.
fn owner(flag: &str, text: &str) -> Result<Value, Stop> {
    let number = |text: &str| text.parse::<u32>().ok();
    let (uid, gid) = match text.split_once(':') {
        Some((uid, gid)) => (number(uid), number(gid)),
        None => (number(text), number(text)),
    };
    match (uid, gid) {
        (Some(uid), Some(gid)) => Ok(json!({ "uid": uid, "gid": gid })),
        _ => Err(wrong(format!("--{flag}: {text:?} is not UID or UID:GID, in numbers"))),
    }
}

/// `MAC,IP[/LENGTH][,gateway=IP][,gateway_mac=MAC]`, as the field `inner`. The daemon reads what
/// the words say.
fn inner(flag: &str, text: &str) -> Result<Value, Stop> {
    let refuse = || {
        let form = "MAC,IP[/LENGTH][,gateway=IP][,gateway_mac=MAC]";
        wrong(format!("--{flag}: {text:?} is not {form}"))
    };
    let mut words = text.split(',').map(str::trim);
    let (mac, ip) = words.next().zip(words.next()).ok_or_else(refuse)?;
    let mut inner = json!({ "mac": mac, "ip": ip });
    for word in words {
        match word.split_once('=') {
            Some((name @ ("gateway" | "gateway_mac"), value)) => inner[name] = value.into(),
            Some(_) | None => return Err(refuse()),
        }
    }
    Ok(inner)
}

/// Adds the NIC that a call is about, if one is named.
fn of_nic(parameters: &mut Value, nic: Option<usize>) {
    if let Some(nic) = nic {
        parameters["nic"] = nic.into();
    }
}

/// `[PROTOCOL:][[HOST_IP:]HOST_PORT:]PORT`, where a port may be a range, as an element of `expose`.
/// An IPv6 address stands in brackets.
fn exposed(word: &str) -> Result<Value, Stop> {
    let refuse = || wrong(format!("{word:?} is not a port such as tcp:8080:80"));
    let mut parts: Vec<&str> = Vec::new();
    let mut rest = Some(word);
    while let Some(text) = rest {
        let end = if text.starts_with('[') { text.find(']').ok_or_else(refuse)? } else { 0 };
        let (part, behind) = match text[end..].find(':') {
            Some(colon) => (&text[..end + colon], Some(&text[end + colon + 1..])),
            None => (text, None),
        };
        parts.push(part);
        rest = behind;
    }
    let protocol = match parts.first().map(|part| part.parse::<Protocol>()) {
        Some(Ok(protocol)) => {
            parts.remove(0);
            protocol
        }
        Some(Err(_)) | None => Protocol::default(),
    };
    let host_ip = match parts.len() {
        3 => Some(host_address(parts.remove(0)).ok_or_else(refuse)?),
        _ => None,
    };
    let ports: Vec<(u16, u16)> =
        parts.iter().map(|part| range(part).ok_or_else(refuse)).collect::<Result<_, _>>()?;
    let ((host_port, hosts), (port, count)) = match ports[..] {
        [port] => (port, port),
        [host_port, port] => (host_port, port),
        _ => return Err(refuse()),
    };
    if port == 0 || host_port != 0 && hosts != count {
        return Err(refuse());
    }
    let mut exposed = json!({
        "protocol": protocol, "port": port, "host_port": host_port, "host_ip": host_ip
    });
    if count > 1 {
        exposed["count"] = count.into();
    }
    Ok(exposed)
}

/// An IPv4 address, or an IPv6 address in brackets.
fn host_address(word: &str) -> Option<IpAddr> {
    match word.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(inner) => inner.parse().ok().map(IpAddr::V6),
        None => word.parse().ok().map(IpAddr::V4),
    }
}

/// `FIRST`, or `FIRST-LAST`: the first, and how many there are.
fn range(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last): (u16, u16) = (first.parse().ok()?, last.parse().ok()?);
    Some((first, last.checked_sub(first)?.checked_add(1)?))
}

/// `FILE`, with `,readonly`, `,format=FORMAT` and the like behind it.
fn disk(text: &str) -> Result<Disk, Stop> {
    let mut disk = Disk::default();
    let mut path = text;
    while let Some((rest, option)) = path.rsplit_once(',') {
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        let number = || {
            let number = value.parse().ok();
            number.ok_or_else(|| wrong(format!("--disk: {value:?} is not a whole number")))
        };
        match name {
            "readonly" => disk.readonly = true,
            "format" => disk.format = Some(value.into()),
            "cache" => disk.cache = Some(value.into()),
            "mb" => disk.mb = Some(number()?),
            "iops" => disk.iops = Some(number()?),
            _ => break,
        }
        path = rest;
    }
    Ok(Disk { path: path.into(), ..disk })
}

/// `TAG=DIRECTORY`, with `,readonly` behind it.
fn share(text: &str) -> Result<Share, Stop> {
    let missing = || wrong(format!("--share: {text:?} is not TAG=DIRECTORY"));
    let (tag, path) = text.split_once('=').ok_or_else(missing)?;
    let (path, readonly) = match path.strip_suffix(",readonly") {
        Some(path) => (path, true),
        None => (path, false),
    };
    Ok(Share { tag: tag.into(), path: path.into(), readonly })
}

fn wrong(reason: impl Into<String>) -> Stop {
    Stop::Wrong(reason.into())
}

fn unknown(option: &str) -> Stop {
    wrong(format!("unknown option --{option}"))
}

fn unexpected(word: &str) -> Stop {
    wrong(format!("{word:?} is an argument too many"))
}

impl From<lexopt::Error> for Stop {
    fn from(error: lexopt::Error) -> Self {
        wrong(error.to_string())
    }
}

impl From<OsString> for Stop {
    fn from(value: OsString) -> Self {
        wrong(format!("{value:?} is not UTF-8"))
    }
}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.verb {
            Some(verb) => write!(f, "{}; see volnet help {verb}", self.reason),
            None => write!(f, "{}; see volnet help", self.reason),
        }
    }
}

#[cfg(test)]
mod tests;
