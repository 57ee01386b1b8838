#compdef volnet
# zsh completion for volnet(8); made by `volnet completion zsh`

_volnet_vms() {
    local -a vms
    vms=(${(f)"$(volnet list --json 2>/dev/null | jq -r '.vms[].name' 2>/dev/null)"})
    compadd -a vms
}

_volnet() {
    local -a verbs
    verbs=(
        'setup:prepare the host, bridge, address, forwarding, NAT'
        'teardown:remove all of that'
        'networks:show the networks and what is free in them'
        'check:find what keeps VMs from working, and how to mend it'
        'doctor:say why a VM reaches nothing, and how to mend it'
        'trace:say what becomes of the packets of its guest'
        'serve:run the daemon'
        'run:make a VM’s network and start its hypervisor'
        'create:make its network only'
        'start:start its hypervisor'
        'stop:stop its hypervisor'
        'restart:stop it and start it again'
        'pause:let its guest stand still'
        'resume:let its guest go on'
        'snapshot:save its guest, for others to wake from'
        'delete:stop it and release everything it has'
        'attach:give a network namespace a place on a network'
        'detach:take the place of a network namespace away'
        'expose:let a port of the host lead to a VM'
        'unexpose:take an exposed port back'
        'policy:set what a VM may send beyond its network'
        'limit:set how much a VM may receive and send'
        'get:show one VM'
        'list:show all VMs'
        'top:show what VMs receive, send and use, live'
        'args:print a VM’s network as arguments for a hypervisor'
        'exec:run a program with a VM’s tap open'
        'console:connect the terminal to a VM’s serial console'
        'vsock:connect to a vsock port of a VM’s guest'
        'logs:show the log of a VM’s console or of its hypervisor'
        'monitor:follow the events'
        'metrics:print the counters of VMs and of the daemon'
        'call:call a method of the daemon’s interface'
        'version:show the versions of volnet and of the kernel'
        'completion:print the completion of a shell'
        'help:explain a verb, volnet help run'
    )
    local i verb
    for ((i = 2; i < CURRENT; i++)); do
        if [[ -n ${verbs[(r)${words[i]}:*]} ]]; then
            verb=${words[i]}
            break
        fi
    done
    case $verb in
    setup)
        _arguments \
            '*--dry-run[change nothing; print each step as a command that does the same]' \
            '*--verbose[print the steps that were done, too]' \
            '*--force[also in the cases that the text names]' \
            '*--service[also the files of the service]' \
            '*--resolved[also the unit that tells systemd-resolved of the names of VMs]' \
            '*--cni[also the plugin and a configuration for engines of containers]' \
            '*--root[the directory that has etc/ and opt/ for these files (default, /)]:PATH:_files' \
            '*--socket[the daemon’s socket (default, RUNTIME/volnet.sock)]:PATH:_files' \
            '*--config-file[settings (default, /etc/volnet/config.json)]:PATH:_files' \
            '*--runtime-dir[files that end with a reboot (default, /run/volnet)]:PATH:_files' \
            '*--log-dir[logs of VMs (default, /var/log/volnet)]:PATH:_files' \
            '*--state-dir[records of VMs (default, /var/lib/volnet)]:PATH:_files' \
            '*--bridge[the first network’s bridge (default, vbr0)]:NAME:' \
            '*--subnet[its prefix (default, 192.168.127.0/24)]:PREFIX:' \
            '*--host-ip[the host’s address in it (default, the first one)]:ADDRESS:' \
            '*--nft-owner[keep others from changing volnet’s nf_tables tables, if the kernel can (default, yes)]:yes|no:(yes no)' \
            '*--kvm[let hypervisors use KVM if the host has it (default, yes)]:yes|no:(yes no)' \
            '*--backend[noop changes nothing (default, linux)]:linux|noop:(linux noop)' \
            '*--log-format[how the daemon logs; journal has priorities, as sd-daemon(3) says]:text|journal:(text journal)' \
            '--json[print JSON]' \
            '*:word:'
        ;;
    teardown)
        _arguments \
            '*--dry-run[change nothing; print each step as a command that does the same]' \
            '*--verbose[print the steps that were done, too]' \
            '*--force[also in the cases that the text names]' \
            '*--service[also the files of the service]' \
            '*--resolved[also the unit that tells systemd-resolved of the names of VMs]' \
            '*--cni[also the plugin and a configuration for engines of containers]' \
            '*--root[the directory that has etc/ and opt/ for these files (default, /)]:PATH:_files' \
            '*--socket[the daemon’s socket (default, RUNTIME/volnet.sock)]:PATH:_files' \
            '*--config-file[settings (default, /etc/volnet/config.json)]:PATH:_files' \
            '*--runtime-dir[files that end with a reboot (default, /run/volnet)]:PATH:_files' \
            '*--log-dir[logs of VMs (default, /var/log/volnet)]:PATH:_files' \
            '*--state-dir[records of VMs (default, /var/lib/volnet)]:PATH:_files' \
            '*--bridge[the first network’s bridge (default, vbr0)]:NAME:' \
            '*--subnet[its prefix (default, 192.168.127.0/24)]:PREFIX:' \
            '*--host-ip[the host’s address in it (default, the first one)]:ADDRESS:' \
            '*--nft-owner[keep others from changing volnet’s nf_tables tables, if the kernel can (default, yes)]:yes|no:(yes no)' \
            '*--kvm[let hypervisors use KVM if the host has it (default, yes)]:yes|no:(yes no)' \
            '*--backend[noop changes nothing (default, linux)]:linux|noop:(linux noop)' \
            '*--log-format[how the daemon logs; journal has priorities, as sd-daemon(3) says]:text|journal:(text journal)' \
            '--json[print JSON]' \
            '*:word:'
        ;;
    networks)
        _arguments \
            '*--socket[the daemon’s socket (default, RUNTIME/volnet.sock)]:PATH:_files' \
            '*--config-file[settings (default, /etc/volnet/config.json)]:PATH:_files' \
            '*--runtime-dir[files that end with a reboot (default, /run/volnet)]:PATH:_files' \
            '*--log-dir[logs of VMs (default, /var/log/volnet)]:PATH:_files' \
            '--json[print JSON]' \
            '*:word:'
        ;;
    check)
        _arguments \
            '*--socket[the daemon’s socket (default, RUNTIME/volnet.sock)]:PATH:_files' \
            '*--config-file[settings (default, /etc/volnet/config.json)]:PATH:_files' \
            '*--runtime-dir[files that end with a reboot (default, /run/volnet)]:PATH:_files' \
            '*--log-dir[logs of VMs (default, /var/log/volnet)]:PATH:_files' \
            '--json[print JSON]' \
            '*:word:'
        ;;
    doctor)
        _arguments \
            '*--socket[the daemon’s socket (default, RUNTIME/volnet.sock)]:PATH:_files' \
            '*--config-file[settings (default, /etc/volnet/config.json)]:PATH:_files' \
            '*--runtime-dir[files that end with a reboot (default, /run/volnet)]:PATH:_files' \
            '*--log-dir[logs of VMs (default, /var/log/volnet)]:PATH:_files' \
            '--json[print JSON]' \
            '*:word:_volnet_vms'
        ;;
    trace)
        _arguments \
            '*--from[tell of the packets that come to this VM, from another VM, from there, or from anybody]:VM|ADDRESS|world:_volnet_vms' \
            '*--to[tell only of packets for there]:HOST(,PORT):' \
            '*--seconds[for how long, at most 600 (default, 10)]:N:' \
            '*--socket[the daemon’s socket (default, RUNTIME/volnet.sock)]:PATH:_files' \
            '*--config-file[settings (default, /etc/volnet/config.json)]:PATH:_files' \
            '*--runtime-dir[files that end with a reboot (default, /run/volnet)]:PATH:_files' \
            '*--log-dir[logs of VMs (default, /var/log/volnet)]:PATH:_files' \
            '--json[print JSON]' \
            '*:word:_volnet_vms'
        ;;
    serve)
        _arguments \
            '*--socket[the daemon’s socket (default, RUNTIME/volnet.sock)]:PATH:_files' \
            '*--config-file[settings (default, /etc/volnet/config.json)]:PATH:_files' \
            '*--runtime-dir[files that end with a reboot (default, /run/volnet)]:PATH:_files' \
            '*--log-dir[logs of VMs (default, /var/log/volnet)]:PATH:_files' \
            '*--state-dir[records of VMs (default, /var/lib/volnet)]:PATH:_files' \
            '*--bridge[the first network’s bridge (default, vbr0)]:NAME:' \
            '*--subnet[its prefix (default, 192.168.127.0/24)]:PREFIX:' \
            '*--host-ip[the host’s address in it (default, the first one)]:ADDRESS:' \
            '*--nft-owner[keep others from changing volnet’s nf_tables tables, if the kernel can (default, yes)]:yes|no:(yes no)' \
            '*--kvm[let hypervisors use KVM if the host has it (default, yes)]:yes|no:(yes no)' \
            '*--backend[noop changes nothing (default, linux)]:linux|noop:(linux noop)' \
            '*--log-format[how the daemon logs; journal has priorities, as sd-daemon(3) says]:text|journal:(text journal)' \
            '*:word:'
        ;;
    run)
        _arguments \
            '*--mode[bridged, the host gives the address (default); dhcp, the guest asks for its address; vsock, no network, only a vsock context id]:MODE:(bridged dhcp vsock)' \
            '*--manifest[a plugin manifest]:FILE:_files' \
            '*--config[settings of this VM, which win over the manifest; flags win over both]:FILE:_files' \
            '*--network[the network (default, the first one); given again, the VM gets another NIC, and the flags that follow are about that one]:NAME:' \
            '*--ip[the address to lease]:ADDRESS:' \
            '*--ip6[the IPv6 address]:ADDRESS:' \
            '*--addresses[addresses that it may use besides its own, and that other VMs may name, too]:ADDRESS(,ADDRESS):' \
            '*--mac[the guest’s Ethernet address]:ADDRESS:' \
            '*--mtu[its MTU (default, the network’s)]:BYTES:' \
            '*--isolated[keep it from other isolated VMs]' \
            '*--policy[what it may send beyond its network, open, internet, none or a policy of the settings (default, the network’s)]:NAME:(open internet none)' \
            '*--expose[let a port of the host lead to the VM; may be given several times]:(PROTOCOL,)((HOST_IP,)HOST_PORT,)PORT:' \
            '*--inner[what its guest takes for its own Ethernet address, address and gateway, if it woke from a snapshot that others woke from, too (default, the network’s)]:MAC,IP(/LENGTH)(,gateway=IP)(,gateway_mac=MAC):' \
            '*--from[the snapshot that its guest wakes from when it is first started; later it boots]:DIRECTORY:_files' \
            '*--queues[queue pairs of its interface (default, 1)]:N:' \
            '*--vsock[give it vsock beside its networks]' \
            '*--rng[give it random numbers from the host]' \
            '*--ephemeral[forget the VM when the host reboots]' \
            '*--autostart[start it when the daemon starts]' \
            '*--restart[what to do if its hypervisor ends by itself, no (default), on-failure or always]:POLICY:(no on-failure always)' \
            '*--owner[who starts its hypervisor, if volnet does not, its tap and sockets are this user’s (default, root’s)]:UID(,GID):' \
            '*--run-as[the user of its hypervisor, shared by all, its own, or one of the host (for root)]:USER:(shared own)' \
            '*--hypervisor[cloud-hypervisor, qemu, firecracker or a template]:NAME:(cloud-hypervisor qemu firecracker)' \
            '*--arg[an argument for its hypervisor after volnet’s own; may be given several times; for root]:TEXT:' \
            '*--kernel[the kernel]:FILE:_files' \
            '*--cmdline[the kernel command line; volnet adds the network’s part]:TEXT:' \
            '*--initramfs[the initial RAM file system]:FILE:_files' \
            '*--rootfs[the root file system, raw, or qcow2 if it ends so; FILE,format=FORMAT says which]:FILE:_files' \
            '*--disk[one more disk; may be given several times. CACHE is writeback, none or unsafe; mb and iops are the most that is read and written a second]:FILE(,readonly)(,format=FORMAT)(,cache=CACHE)(,mb=N)(,iops=N):_files' \
            '*--share[a directory of the host that the guest mounts by its tag; may be given several times]:TAG=DIRECTORY(,readonly):_files' \
            '*--cloud-init[a disk for cloud-init, with this user-data and the network of the VM]:FILE:_files' \
            '*--cpus[virtual CPUs (default, 1)]:N:' \
            '*--memory[memory (default, 512)]:MIB:' \
            '*--hugepages[take its memory from the host’s huge pages]' \
            '*--balloon[let memory that it frees go back to the host]' \
            '*--cpu-percent[its processor time, 100 is one CPU]:N:' \
            '*--memory-max[its memory with the hypervisor’s]:MIB:' \
            '*--read-mb[MB that it reads a second]:N:' \
            '*--write-mb[MB that it writes a second]:N:' \
            '*--read-iops[its reads a second]:N:' \
            '*--write-iops[its writes a second]:N:' \
            '*--rx[the most it receives, in Mbit/s (default, the network’s)]:MBIT:' \
            '*--tx[the most it sends, in Mbit/s; more is dropped]:MBIT:' \
            '*--burst[the burst beyond these rates, 64 to 32768]:KIB:' \
            '*--pps[the most packets a second it sends]:N:' \
            '*--dry-run[change nothing; print each step as a command that does the same]' \
            '*--count[so many VMs at once, NAME-1 to NAME-N; {name} in the path of a disk is the name of each]:N:' \
            '*--socket[the daemon’s socket (default, RUNTIME/volnet.sock)]:PATH:_files' \
            '*--config-file[settings (default, /etc/volnet/config.json)]:PATH:_files' \
            '*--runtime-dir[files that end with a reboot (default, /run/volnet)]:PATH:_files' \
            '*--log-dir[logs of VMs (default, /var/log/volnet)]:PATH:_files' \
            '--json[print JSON]' \
            '*:word:'
        ;;
    create)
        _arguments \
            '*--mode[bridged, the host gives the address (default); dhcp, the guest asks for its address; vsock, no network, only a vsock context id]:MODE:(bridged dhcp vsock)' \
            '*--manifest[a plugin manifest]:FILE:_files' \
            '*--config[settings of this VM, which win over the manifest; flags win over both]:FILE:_files' \
            '*--network[the network (default, the first one); given again, the VM gets another NIC, and the flags that follow are about that one]:NAME:' \
            '*--ip[the address to lease]:ADDRESS:' \
            '*--ip6[the IPv6 address]:ADDRESS:' \
            '*--addresses[addresses that it may use besides its own, and that other VMs may name, too]:ADDRESS(,ADDRESS):' \
            '*--mac[the guest’s Ethernet address]:ADDRESS:' \
            '*--mtu[its MTU (default, the network’s)]:BYTES:' \
            '*--isolated[keep it from other isolated VMs]' \
            '*--policy[what it may send beyond its network, open, internet, none or a policy of the settings (default, the network’s)]:NAME:(open internet none)' \
            '*--expose[let a port of the host lead to the VM; may be given several times]:(PROTOCOL,)((HOST_IP,)HOST_PORT,)PORT:' \
            '*--inner[what its guest takes for its own Ethernet address, address and gateway, if it woke from a snapshot that others woke from, too (default, the network’s)]:MAC,IP(/LENGTH)(,gateway=IP)(,gateway_mac=MAC):' \
            '*--from[the snapshot that its guest wakes from when it is first started; later it boots]:DIRECTORY:_files' \
            '*--queues[queue pairs of its interface (default, 1)]:N:' \
            '*--vsock[give it vsock beside its networks]' \
            '*--rng[give it random numbers from the host]' \
            '*--ephemeral[forget the VM when the host reboots]' \
            '*--autostart[start it when the daemon starts]' \
            '*--restart[what to do if its hypervisor ends by itself, no (default), on-failure or always]:POLICY:(no on-failure always)' \
            '*--owner[who starts its hypervisor, if volnet does not, its tap and sockets are this user’s (default, root’s)]:UID(,GID):' \
            '*--run-as[the user of its hypervisor, shared by all, its own, or one of the host (for root)]:USER:(shared own)' \
            '*--hypervisor[cloud-hypervisor, qemu, firecracker or a template]:NAME:(cloud-hypervisor qemu firecracker)' \
            '*--arg[an argument for its hypervisor after volnet’s own; may be given several times; for root]:TEXT:' \
            '*--kernel[the kernel]:FILE:_files' \
            '*--cmdline[the kernel command line; volnet adds the network’s part]:TEXT:' \
            '*--initramfs[the initial RAM file system]:FILE:_files' \
            '*--rootfs[the root file system, raw, or qcow2 if it ends so; FILE,format=FORMAT says which]:FILE:_files' \
            '*--disk[one more disk; may be given several times. CACHE is writeback, none or unsafe; mb and iops are the most that is read and written a second]:FILE(,readonly)(,format=FORMAT)(,cache=CACHE)(,mb=N)(,iops=N):_files' \
            '*--share[a directory of the host that the guest mounts by its tag; may be given several times]:TAG=DIRECTORY(,readonly):_files' \
            '*--cloud-init[a disk for cloud-init, with this user-data and the network of the VM]:FILE:_files' \
            '*--cpus[virtual CPUs (default, 1)]:N:' \
            '*--memory[memory (default, 512)]:MIB:' \
            '*--hugepages[take its memory from the host’s huge pages]' \
            '*--balloon[let memory that it frees go back to the host]' \
            '*--cpu-percent[its processor time, 100 is one CPU]:N:' \
            '*--memory-max[its memory with the hypervisor’s]:MIB:' \
            '*--read-mb[MB that it reads a second]:N:' \
            '*--write-mb[MB that it writes a second]:N:' \
            '*--read-iops[its reads a second]:N:' \
            '*--write-iops[its writes a second]:N:' \
            '*--rx[the most it receives, in Mbit/s (default, the network’s)]:MBIT:' \
            '*--tx[the most it sends, in Mbit/s; more is dropped]:MBIT:' \
            '*--burst[the burst beyond these rates, 64 to 32768]:KIB:' \
            '*--pps[the most packets a second it sends]:N:' \
            '*--dry-run[change nothing; print each step as a command that does the same]' \
            '*--socket[the daemon’s socket (default, RUNTIME/volnet.sock)]:PATH:_files' \
            '*--config-file[settings (default, /etc/volnet/config.json)]:PATH:_files' \
            '*--runtime-dir[files that end with a reboot (default, /run/volnet)]:PATH:_files' \
            '*--log-dir[logs of VMs (default, /var/log/volnet)]:PATH:_files' \
            '--json[print JSON]' \
            '*:word:'
        ;;
    start)
        _arguments \
            '*--socket[the daemon’s socket (default, RUNTIME/volnet.sock)]:PATH:_files' \
            '*--config-file[settings (default, /etc/volnet/config.json)]:PATH:_files' \
            '*--runtime-dir[files that end with a reboot (default, /run/volnet)]:PATH:_files' \
            '*--log-dir[logs of VMs (default, /var/log/volnet)]:PATH:_files' \
            '--json[print JSON, one line per VM]' \
            '*:word:_volnet_vms'
        ;;
    stop)
        _arguments \
            '*--timeout[how long a guest has to power off before SIGKILL (default, 30)]:SECONDS:' \
            '*--all[all VMs that run]' \
            '*--socket[the daemon’s socket (default, RUNTIME/volnet.sock)]:PATH:_files' \
            '*--config-file[settings (default, /etc/volnet/config.json)]:PATH:_files' \
            '*--runtime-dir[files that end with a reboot (default, /run/volnet)]:PATH:_files' \
            '*--log-dir[logs of VMs (default, /var/log/volnet)]:PATH:_files' \
            '--json[print JSON, one line per VM]' \
            '*:word:_volnet_vms'
        ;;
    restart)
        _arguments \
            '*--timeout[how long a guest has to power off before SIGKILL (default, 30)]:SECONDS:' \
            '*--socket[the daemon’s socket (default, RUNTIME/volnet.sock)]:PATH:_files' \
            '*--config-file[settings (default, /etc/volnet/config.json)]:PATH:_files' \
            '*--runtime-dir[files that end with a reboot (default, /run/volnet)]:PATH:_files' \
            '*--log-dir[logs of VMs (default, /var/log/volnet)]:PATH:_files' \
            '--json[print JSON, one line per VM]' \
            '*:word:_volnet_vms'
        ;;
    pause)
        _arguments \
            '*--socket[the daemon’s socket (default, RUNTIME/volnet.sock)]:PATH:_files' \
            '*--config-file[settings (default, /etc/volnet/config.json)]:PATH:_files' \
            '*--runtime-dir[files that end with a reboot (default, /run/volnet)]:PATH:_files' \
            '*--log-dir[logs of VMs (default, /var/log/volnet)]:PATH:_files' \
            '--json[print JSON, one line per VM]' \
            '*:word:_volnet_vms'
        ;;
    resume)
        _arguments \
            '*--socket[the daemon’s socket (default, RUNTIME/volnet.sock)]:PATH:_files' \
            '*--config-file[settings (default, /etc/volnet/config.json)]:PATH:_files' \
            '*--runtime-dir[files that end with a reboot (default, /run/volnet)]:PATH:_files' \
            '*--log-dir[logs of VMs (default, /var/log/volnet)]:PATH:_files' \
            '--json[print JSON, one line per VM]' \
            '*:word:_volnet_vms'
        ;;
    snapshot)
        _arguments \
            '*--socket[the daemon’s socket (default, RUNTIME/volnet.sock)]:PATH:_files' \
            '*--config-file[settings (default, /etc/volnet/config.json)]:PATH:_files' \
            '*--runtime-dir[files that end with a reboot (default, /run/volnet)]:PATH:_files' \
            '*--log-dir[logs of VMs (default, /var/log/volnet)]:PATH:_files' \
            '--json[print JSON]' \
            '*:word:_volnet_vms'
        ;;
    delete)
        _arguments \
            '*--timeout[how long a guest has to power off before SIGKILL (default, 30)]:SECONDS:' \
            '*--socket[the daemon’s socket (default, RUNTIME/volnet.sock)]:PATH:_files' \
            '*--config-file[settings (default, /etc/volnet/config.json)]:PATH:_files' \
            '*--runtime-dir[files that end with a reboot (default, /run/volnet)]:PATH:_files' \
            '*--log-dir[logs of VMs (default, /var/log/volnet)]:PATH:_files' \
            '--json[print JSON, one line per VM]' \
            '*:word:_volnet_vms'
        ;;
    attach)
        _arguments \
            '*--netns[the network namespace, such as /run/netns/NAME]:PATH:_files' \
            '*--ifname[the name of its link (default, eth0)]:NAME:' \
            '*--tap[make a tap of this name in the namespace, for a VM there]:NAME:' \
            '*--owner[who starts its hypervisor, if volnet does not, its tap and sockets are this user’s (default, root’s)]:UID(,GID):' \
            '*--network[the network (default, the first one)]:NAME:' \
            '*--ip[the address to lease]:ADDRESS:' \
            '*--ip6[the IPv6 address]:ADDRESS:' \
            '*--addresses[addresses that it may use besides its own, and that other VMs may name, too]:ADDRESS(,ADDRESS):' \
            '*--mac[the guest’s Ethernet address]:ADDRESS:' \
            '*--mtu[its MTU (default, the network’s)]:BYTES:' \
            '*--isolated[keep it from other isolated VMs]' \
            '*--policy[what it may send beyond its network, open, internet, none or a policy of the settings (default, the network’s)]:NAME:(open internet none)' \
            '*--expose[let a port of the host lead to the VM; may be given several times]:(PROTOCOL,)((HOST_IP,)HOST_PORT,)PORT:' \
            '*--rx[the most it receives, in Mbit/s (default, the network’s)]:MBIT:' \
            '*--tx[the most it sends, in Mbit/s; more is dropped]:MBIT:' \
            '*--burst[the burst beyond these rates, 64 to 32768]:KIB:' \
            '*--pps[the most packets a second it sends]:N:' \
            '*--force[even if a program of the host listens on the port]' \
            '*--socket[the daemon’s socket (default, RUNTIME/volnet.sock)]:PATH:_files' \
            '*--config-file[settings (default, /etc/volnet/config.json)]:PATH:_files' \
            '*--runtime-dir[files that end with a reboot (default, /run/volnet)]:PATH:_files' \
            '*--log-dir[logs of VMs (default, /var/log/volnet)]:PATH:_files' \
            '--json[print JSON]' \
            '*:word:'
        ;;
    detach)
        _arguments \
            '*--netns[the network namespace, such as /run/netns/NAME]:PATH:_files' \
            '*--ifname[the name of its link (default, eth0)]:NAME:' \
            '*--socket[the daemon’s socket (default, RUNTIME/volnet.sock)]:PATH:_files' \
            '*--config-file[settings (default, /etc/volnet/config.json)]:PATH:_files' \
            '*--runtime-dir[files that end with a reboot (default, /run/volnet)]:PATH:_files' \
            '*--log-dir[logs of VMs (default, /var/log/volnet)]:PATH:_files' \
            '--json[print JSON]' \
            '*:word:'
        ;;
    expose)
        _arguments \
            '*--nic[the NIC that is meant, counted from 0]:N:' \
            '*--force[even if a program of the host listens on the port]' \
            '*--socket[the daemon’s socket (default, RUNTIME/volnet.sock)]:PATH:_files' \
            '*--config-file[settings (default, /etc/volnet/config.json)]:PATH:_files' \
            '*--runtime-dir[files that end with a reboot (default, /run/volnet)]:PATH:_files' \
            '*--log-dir[logs of VMs (default, /var/log/volnet)]:PATH:_files' \
            '--json[print JSON]' \
            '*:word:_volnet_vms'
        ;;
    unexpose)
        _arguments \
            '*--socket[the daemon’s socket (default, RUNTIME/volnet.sock)]:PATH:_files' \
            '*--config-file[settings (default, /etc/volnet/config.json)]:PATH:_files' \
            '*--runtime-dir[files that end with a reboot (default, /run/volnet)]:PATH:_files' \
            '*--log-dir[logs of VMs (default, /var/log/volnet)]:PATH:_files' \
            '--json[print JSON]' \
            '*:word:_volnet_vms'
        ;;
    policy)
        _arguments \
            '*--nic[the NIC that is meant, counted from 0]:N:' \
            '*--socket[the daemon’s socket (default, RUNTIME/volnet.sock)]:PATH:_files' \
            '*--config-file[settings (default, /etc/volnet/config.json)]:PATH:_files' \
            '*--runtime-dir[files that end with a reboot (default, /run/volnet)]:PATH:_files' \
            '*--log-dir[logs of VMs (default, /var/log/volnet)]:PATH:_files' \
            '--json[print JSON]' \
            '*:word:_volnet_vms'
        ;;
    limit)
        _arguments \
            '*--rx[the most it receives, in Mbit/s (default, the network’s)]:MBIT:' \
            '*--tx[the most it sends, in Mbit/s; more is dropped]:MBIT:' \
            '*--burst[the burst beyond these rates, 64 to 32768]:KIB:' \
            '*--pps[the most packets a second it sends]:N:' \
            '*--nic[the NIC that is meant, counted from 0]:N:' \
            '*--socket[the daemon’s socket (default, RUNTIME/volnet.sock)]:PATH:_files' \
            '*--config-file[settings (default, /etc/volnet/config.json)]:PATH:_files' \
            '*--runtime-dir[files that end with a reboot (default, /run/volnet)]:PATH:_files' \
            '*--log-dir[logs of VMs (default, /var/log/volnet)]:PATH:_files' \
            '--json[print JSON]' \
            '*:word:_volnet_vms'
        ;;
    get)
        _arguments \
            '*--socket[the daemon’s socket (default, RUNTIME/volnet.sock)]:PATH:_files' \
            '*--config-file[settings (default, /etc/volnet/config.json)]:PATH:_files' \
            '*--runtime-dir[files that end with a reboot (default, /run/volnet)]:PATH:_files' \
            '*--log-dir[logs of VMs (default, /var/log/volnet)]:PATH:_files' \
            '--json[print JSON]' \
            '*:word:_volnet_vms'
        ;;
    list)
        _arguments \
            '*--watch[show them again whenever something happens]' \
            '*--socket[the daemon’s socket (default, RUNTIME/volnet.sock)]:PATH:_files' \
            '*--config-file[settings (default, /etc/volnet/config.json)]:PATH:_files' \
            '*--runtime-dir[files that end with a reboot (default, /run/volnet)]:PATH:_files' \
            '*--log-dir[logs of VMs (default, /var/log/volnet)]:PATH:_files' \
            '--json[print JSON]' \
            '*:word:'
        ;;
    top)
        _arguments \
            '*--once[print the table once, after one interval, and end]' \
            '*--sort[the column to sort by (default, received)]:WORD:(name received sent packets denied limited cpu memory)' \
            '*--interval[the time between two looks (default, 1)]:SECONDS:' \
            '*--socket[the daemon’s socket (default, RUNTIME/volnet.sock)]:PATH:_files' \
            '*--config-file[settings (default, /etc/volnet/config.json)]:PATH:_files' \
            '*--runtime-dir[files that end with a reboot (default, /run/volnet)]:PATH:_files' \
            '*--log-dir[logs of VMs (default, /var/log/volnet)]:PATH:_files' \
            '*:word:'
        ;;
    args)
        _arguments \
            '*--hypervisor[its name, cloud-hypervisor, qemu, firecracker or a template]:NAME:(cloud-hypervisor qemu firecracker)' \
            '*--kernel-args[print what belongs to the guest’s kernel command line]' \
            '*--socket[the daemon’s socket (default, RUNTIME/volnet.sock)]:PATH:_files' \
            '*--config-file[settings (default, /etc/volnet/config.json)]:PATH:_files' \
            '*--runtime-dir[files that end with a reboot (default, /run/volnet)]:PATH:_files' \
            '*--log-dir[logs of VMs (default, /var/log/volnet)]:PATH:_files' \
            '--json[print JSON]' \
            '*:word:_volnet_vms'
        ;;
    exec)
        _arguments \
            '*--socket[the daemon’s socket (default, RUNTIME/volnet.sock)]:PATH:_files' \
            '*--config-file[settings (default, /etc/volnet/config.json)]:PATH:_files' \
            '*--runtime-dir[files that end with a reboot (default, /run/volnet)]:PATH:_files' \
            '*--log-dir[logs of VMs (default, /var/log/volnet)]:PATH:_files' \
            '*:word:_volnet_vms'
        ;;
    console)
        _arguments \
            '*--socket[the daemon’s socket (default, RUNTIME/volnet.sock)]:PATH:_files' \
            '*--config-file[settings (default, /etc/volnet/config.json)]:PATH:_files' \
            '*--runtime-dir[files that end with a reboot (default, /run/volnet)]:PATH:_files' \
            '*--log-dir[logs of VMs (default, /var/log/volnet)]:PATH:_files' \
            '*:word:_volnet_vms'
        ;;
    vsock)
        _arguments \
            '*--wait[how long the guest may be silent after the end of the input (default, 5)]:SECONDS:' \
            '*--socket[the daemon’s socket (default, RUNTIME/volnet.sock)]:PATH:_files' \
            '*--config-file[settings (default, /etc/volnet/config.json)]:PATH:_files' \
            '*--runtime-dir[files that end with a reboot (default, /run/volnet)]:PATH:_files' \
            '*--log-dir[logs of VMs (default, /var/log/volnet)]:PATH:_files' \
            '*:word:_volnet_vms'
        ;;
    logs)
        _arguments \
            '*--messages[what the hypervisor itself says instead]' \
            '*--follow[also show new lines as they are added (-f)]' \
            '*--socket[the daemon’s socket (default, RUNTIME/volnet.sock)]:PATH:_files' \
            '*--config-file[settings (default, /etc/volnet/config.json)]:PATH:_files' \
            '*--runtime-dir[files that end with a reboot (default, /run/volnet)]:PATH:_files' \
            '*--log-dir[logs of VMs (default, /var/log/volnet)]:PATH:_files' \
            '*:word:_volnet_vms'
        ;;
    monitor)
        _arguments \
            '*--socket[the daemon’s socket (default, RUNTIME/volnet.sock)]:PATH:_files' \
            '*--config-file[settings (default, /etc/volnet/config.json)]:PATH:_files' \
            '*--runtime-dir[files that end with a reboot (default, /run/volnet)]:PATH:_files' \
            '*--log-dir[logs of VMs (default, /var/log/volnet)]:PATH:_files' \
            '--json[print JSON]' \
            '*:word:'
        ;;
    metrics)
        _arguments \
            '*--socket[the daemon’s socket (default, RUNTIME/volnet.sock)]:PATH:_files' \
            '*--config-file[settings (default, /etc/volnet/config.json)]:PATH:_files' \
            '*--runtime-dir[files that end with a reboot (default, /run/volnet)]:PATH:_files' \
            '*--log-dir[logs of VMs (default, /var/log/volnet)]:PATH:_files' \
            '--json[print JSON]' \
            '*:word:'
        ;;
    call)
        _arguments \
            '*--more[accept more than one reply]' \
            '*--socket[the daemon’s socket (default, RUNTIME/volnet.sock)]:PATH:_files' \
            '*--config-file[settings (default, /etc/volnet/config.json)]:PATH:_files' \
            '*--runtime-dir[files that end with a reboot (default, /run/volnet)]:PATH:_files' \
            '*--log-dir[logs of VMs (default, /var/log/volnet)]:PATH:_files' \
            '--json[print JSON]' \
            '*:word:'
        ;;
    version)
        _arguments \
            '*--socket[the daemon’s socket (default, RUNTIME/volnet.sock)]:PATH:_files' \
            '*--config-file[settings (default, /etc/volnet/config.json)]:PATH:_files' \
            '*--runtime-dir[files that end with a reboot (default, /run/volnet)]:PATH:_files' \
            '*--log-dir[logs of VMs (default, /var/log/volnet)]:PATH:_files' \
            '--json[print JSON]' \
            '*:word:'
        ;;
    completion)
        _arguments \
            '*:word:(bash zsh fish)'
        ;;
    help)
        _arguments \
            '*:word:(setup teardown networks check doctor trace serve run create start stop restart pause resume snapshot delete attach detach expose unexpose policy limit get list top args exec console vsock logs monitor metrics call version completion help)'
        ;;
    *) _describe verb verbs ;;
    esac
}

_volnet "$@"
