use super::*;

fn read(text: &str) -> Result<Invocation, Usage> {
    parse(std::iter::once("volnet").chain(text.split_whitespace()).map(OsString::from))
}

fn command(text: &str) -> Command {
    read(text).unwrap_or_else(|usage| panic!("{text}: {usage}")).command
}

fn change(change: VmVerb, names: &[&str], timeout_ms: Option<u64>) -> Command {
    let vms = Vms::Named(names.iter().map(|name| (*name).into()).collect());
    Command::VmVerb { change, vms, timeout_ms }
}

#[test]
fn every_verb() {
    let s = String::from;
    let call = |method: &str, parameters: Option<&str>, more| Command::Call {
        method: method.into(),
        parameters: parameters.map(String::from),
        more,
    };
    let adjusted = |method: &str, given: Value| {
        let mut parameters = json!({"name": "web", "protocol": "tcp", "host_ip": null});
        let fields = parameters.as_object_mut().unwrap();
        fields.extend(given.as_object().unwrap().clone());
        let method = if method == "Expose" { "io.volnet.Expose" } else { "io.volnet.Unexpose" };
        Command::Adjust { method, parameters }
    };
    let plain = || Preparation { root: "/".into(), ..Preparation::default() };
    let dry = Preparation { dry_run: true, ..plain() };
    let service = |root: &str| Preparation { service: true, root: root.into(), ..plain() };
    let forced = Preparation { force: true, ..service("/r") };
    let resolved = |service| Preparation { service, resolved: true, ..plain() };
    let cni = Preparation { cni: true, root: "/r".into(), ..plain() };
    let table = [
        ("serve", Command::Serve),
        ("setup", Command::Setup(plain())),
        ("setup --dry-run", Command::Setup(dry.clone())),
        ("setup --service", Command::Setup(service("/"))),
        ("setup --service --force --root /r", Command::Setup(forced)),
        ("setup --cni --root /r", Command::Setup(cni.clone())),
        ("teardown --cni --root /r", Command::Teardown(cni)),
        ("teardown", Command::Teardown(plain())),
        ("teardown --dry-run", Command::Teardown(dry)),
        ("setup --resolved", Command::Setup(resolved(false))),
        ("teardown --service", Command::Teardown(resolved(true))),
        ("start web", change(VmVerb::Start, &["web"], None)),
        ("stop web db --timeout 5", change(VmVerb::Stop, &["web", "db"], Some(5000))),
        (
            "stop --all",
            Command::VmVerb { change: VmVerb::Stop, vms: Vms::Running, timeout_ms: None },
        ),
        ("restart --timeout=0 web", change(VmVerb::Restart, &["web"], Some(0))),
        ("delete -- web", change(VmVerb::Delete, &["web"], None)),
        ("expose web tcp:8080:80", adjusted("Expose", json!({"port": 80, "host_port": 8080}))),
        (
            "expose web udp:10.0.0.1:53:5353",
            adjusted(
                "Expose",
                json!({"protocol": "udp", "port": 5353, "host_port": 53, "host_ip": "10.0.0.1"}),
            ),
        ),
        (
            "expose web [2001:db8::1]:8080:80",
            adjusted("Expose", json!({"port": 80, "host_port": 8080, "host_ip": "2001:db8::1"})),
        ),
        ("unexpose web 80", adjusted("Unexpose", json!({"host_port": 80}))),
        ("get web", Command::Get { name: s("web") }),
        ("list", Command::List { watch: false }),
        ("list --watch", Command::List { watch: true }),
        ("top", Command::Top { once: false, interval_s: 1, sort: Sort(1) }),
        (
            "top --once --sort cpu --interval 5",
            Command::Top { once: true, interval_s: 5, sort: Sort(6) },
        ),
        ("networks", Command::Networks),
        ("args web", Command::Args { name: s("web"), hypervisor: None, kernel_args: false }),
        (
            "args web --kernel-args",
            Command::Args { name: s("web"), hypervisor: None, kernel_args: true },
        ),
        (
            "args web --hypervisor qemu",
            Command::Args { name: s("web"), hypervisor: Some(s("qemu")), kernel_args: false },
        ),
        (
            "limit web --rx 100 --pps 0",
            Command::Adjust {
                method: "io.volnet.SetLimits",
                parameters: json!({ "name": "web", "rx_mbit": 100, "pps": 0 }),
            },
        ),
        ("call List", call("List", None, false)),
        (
            "call io.volnet.Get {\"name\":\"web\"}",
            call("io.volnet.Get", Some("{\"name\":\"web\"}"), false),
        ),
        ("call Monitor --more", call("Monitor", None, true)),
        ("console web", Command::Console { name: s("web") }),
        (
            "exec web -- sh -c {fd}",
            Command::Exec { name: s("web"), program: s("sh"), args: vec![s("-c"), s("{fd}")] },
        ),
        ("vsock web 1024", Command::Vsock { name: s("web"), port: 1024, wait: None }),
        ("vsock web 1024 --wait 30", Command::Vsock { name: s("web"), port: 1024, wait: Some(30) }),
        ("logs web", Command::Logs { name: s("web"), messages: false, follow: false }),
        ("logs -f web", Command::Logs { name: s("web"), messages: false, follow: true }),
        (
            "logs web --messages --follow",
            Command::Logs { name: s("web"), messages: true, follow: true },
        ),
        ("monitor", Command::Monitor),
        ("check", Command::Check),
        ("trace web", Command::Trace { name: s("web"), from: None, to: None, seconds: None }),
        (
            "trace web --to 192.0.2.7:443 --seconds 3",
            Command::Trace {
                name: s("web"),
                from: None,
                to: Some(s("192.0.2.7:443")),
                seconds: Some(3),
            },
        ),
        (
            "trace web --from db",
            Command::Trace {
                name: s("web"),
                from: Some(Origin::Vm(s("db"))),
                to: None,
                seconds: None,
            },
        ),
        (
            "trace web --from 2001:db8::7 --to 192.0.2.7",
            Command::Trace {
                name: s("web"),
                from: Some(Origin::Outside(s("2001:db8::7"))),
                to: Some(s("192.0.2.7")),
                seconds: None,
            },
        ),
        ("doctor", Command::Doctor { name: None }),
        ("doctor web", Command::Doctor { name: Some("web".into()) }),
        ("version", Command::Version),
        ("--version", Command::Version),
        ("-V", Command::Version),
        ("help", Command::Help { verb: None }),
        ("help run", Command::Help { verb: Some(s("run")) }),
        ("--help", Command::Help { verb: None }),
        ("run --help", Command::Help { verb: Some(s("run")) }),
        ("delete web -h", Command::Help { verb: Some(s("delete")) }),
    ];
    for (text, expected) in table {
        assert_eq!(command(text), expected, "{text}");
    }
}

#[test]
fn create_and_run() {
    let Command::Create(create) = command("create web") else { panic!() };
    let nothing = Create {
        count: None,
        args: Vec::new(),
        expose: vec![],
        name: "web".into(),
        manifest: None,
        config: None,
        overrides: vec![],
        disks: vec![],
        shares: vec![],
        start: false,
        dry_run: false,
    };
    assert_eq!(*create, nothing);

    let text = "run web --manifest m.json --config c.json --mode dhcp --cpus 2 --kernel k \
                --initramfs i --isolated --dry-run --disk a,b.img,cache=none,mb=50,iops=9 \
                --disk b.qcow2,readonly --share data=d=1,readonly --ip 1 --ip 10.0.0.2";
    let Command::Create(run) = command(text) else { panic!() };
    let set = |section, field, value| Override { nic: 0, section, field, value };
    let network = |field, value: Value| set(Some("network"), field, Setting::Value(value));
    let expected = Create {
        count: None,
        args: Vec::new(),
        expose: vec![],
        name: "web".into(),
        manifest: Some("m.json".into()),
        config: Some("c.json".into()),
        overrides: vec![
            network("mode", "dhcp".into()),
            set(Some("resources"), "cpu_cores", Setting::Value(2.into())),
            set(None, "kernel_override", Setting::Path("k".into())),
            set(None, "initramfs", Setting::Image("i".into())),
            network("isolated", true.into()),
            network("ip", "1".into()),
            network("ip", "10.0.0.2".into()),
        ],
        disks: vec![
            Disk {
                path: "a,b.img".into(),
                cache: Some("none".into()),
                mb: Some(50),
                iops: Some(9),
                ..Disk::default()
            },
            Disk { path: "b.qcow2".into(), readonly: true, ..Disk::default() },
        ],
        shares: vec![Share { tag: "data".into(), path: "d=1".into(), readonly: true }],
        start: true,
        dry_run: true,
    };
    assert_eq!(*run, expected);
}

#[test]
fn what_follows_a_network_is_about_that_network() {
    let text = "create web --policy none --network front --ip 10.0.0.2 --expose 80 \
                --network back --mtu 1400 --expose 8080:80 --network back";
    let Command::Create(create) = command(text) else { panic!() };
    let set: Vec<_> = create.overrides.iter().map(|set| (set.nic, set.field)).collect();
    let expected = [(0, "policy"), (0, "name"), (0, "ip"), (1, "name"), (1, "mtu"), (2, "name")];
    assert_eq!(set, expected);
    assert_eq!(create.expose.iter().map(|(nic, _)| *nic).collect::<Vec<_>>(), [0, 1]);

    for text in ["policy web none --nic 1", "expose web 80 --nic 1", "limit web --nic 1 --rx 1"] {
        let Command::Adjust { parameters, .. } = command(text) else { panic!("{text}") };
        assert_eq!(parameters["nic"], 1, "{text}");
    }
    for text in ["policy web none --nic 64", "policy web none --nic -1", "policy web none --nic x"]
    {
        assert!(read(text).is_err(), "{text}");
    }
}

#[test]
fn settings_and_json_stand_anywhere() {
    let mut flags = Flags::default();
    flags.set("socket", "/s".into());
    for text in ["--socket /s --json list", "list --json --socket=/s", "list --socket /s --json"] {
        let invocation = read(text).unwrap();
        assert_eq!(invocation.flags, flags, "{text}");
        assert!(invocation.json);
    }
    let served = read("serve --bridge b --subnet 10.0.0.0/8 --nft-owner=no").unwrap();
    let mut flags = Flags::default();
    flags.set("bridge", "b".into());
    flags.set("subnet", "10.0.0.0/8".into());
    flags.set("nft-owner", "no".into());
    assert_eq!(served.flags, flags);
}

#[test]
fn wrong_usage_says_what_is_wrong_and_which_help_helps() {
    let table = [
        ("", "no verb is given; see volnet help"),
        ("fly", "there is no verb \"fly\"; see volnet help"),
        ("help fly", "there is no verb \"fly\"; see volnet help help"),
        ("list web", "\"web\" is an argument too many; see volnet help list"),
        ("list --state-dir /x", "unknown option --state-dir; see volnet help list"),
        ("list -x", "unknown option -x; see volnet help list"),
        ("get", "NAME is missing; see volnet help get"),
        ("get a b", "\"b\" is an argument too many; see volnet help get"),
        ("start", "NAME is missing; see volnet help start"),
        ("start web --timeout 3", "unknown option --timeout; see volnet help start"),
        (
            "stop web --timeout soon",
            "--timeout: \"soon\" is not 0 to 86400 seconds; see volnet help stop",
        ),
        (
            "stop web --timeout 86401",
            "--timeout: \"86401\" is not 0 to 86400 seconds; see volnet help stop",
        ),
        ("trace web --seconds 601", "--seconds: 601 is not 1 to 600; see volnet help trace"),
        ("trace web --seconds 0", "--seconds: 0 is not 1 to 600; see volnet help trace"),
        ("run web --count 0", "--count: \"0\" is not 1 to 1023 VMs; see volnet help run"),
        ("run web --count 1024", "--count: \"1024\" is not 1 to 1023 VMs; see volnet help run"),
        ("run web --cpus two", "--cpus: \"two\" is not a whole number; see volnet help run"),
        ("create web --kernel", "missing argument for option '--kernel'; see volnet help create"),
        ("setup --root /r", "--root needs --service, --cni or --resolved; see volnet help setup"),
        ("call", "METHOD is missing; see volnet help call"),
        (
            "attach a --netns /run/netns/a --owner 1",
            "--owner needs --tap: a pair of links has no owner; see volnet help attach",
        ),
        ("call a b c", "\"c\" is an argument too many; see volnet help call"),
        ("serve --json", "unknown option --json; see volnet help serve"),
        ("--bridge b list", "unknown option --bridge; see volnet help"),
    ];
    for (text, expected) in table {
        match read(text) {
            Err(usage) => assert_eq!(usage.to_string(), expected, "{text}"),
            Ok(invocation) => panic!("{text}: {invocation:?}"),
        }
    }
}
