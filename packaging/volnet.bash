# bash completion for volnet(8); made by `volnet completion bash`

_volnet_vms() {
    volnet list --json 2>/dev/null | jq -r '.vms[].name' 2>/dev/null
}

_volnet() {
    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]} verb='' i choices
    # bash makes words of their own of = and what stands behind it.
    if [ "$before" = = ]; then
        before=${COMP_WORDS[COMP_CWORD - 2]}
    elif [ "$word" = = ]; then
        word=''
    fi
    for ((i = 1; i < COMP_CWORD; i++)); do
        case ${COMP_WORDS[i]} in
        setup) verb='setup' && break ;;
        teardown) verb='teardown' && break ;;
        networks) verb='networks' && break ;;
        check) verb='check' && break ;;
        doctor) verb='doctor' && break ;;
        trace) verb='trace' && break ;;
        serve) verb='serve' && break ;;
        run) verb='run' && break ;;
        create) verb='create' && break ;;
        start) verb='start' && break ;;
        stop) verb='stop' && break ;;
        restart) verb='restart' && break ;;
        pause) verb='pause' && break ;;
        resume) verb='resume' && break ;;
        snapshot) verb='snapshot' && break ;;
        delete) verb='delete' && break ;;
        attach) verb='attach' && break ;;
        detach) verb='detach' && break ;;
        expose) verb='expose' && break ;;
        unexpose) verb='unexpose' && break ;;
        policy) verb='policy' && break ;;
        limit) verb='limit' && break ;;
        get) verb='get' && break ;;
        list) verb='list' && break ;;
        top) verb='top' && break ;;
        args) verb='args' && break ;;
        exec) verb='exec' && break ;;
        console) verb='console' && break ;;
        vsock) verb='vsock' && break ;;
        logs) verb='logs' && break ;;
        monitor) verb='monitor' && break ;;
        metrics) verb='metrics' && break ;;
        call) verb='call' && break ;;
        version) verb='version' && break ;;
        completion) verb='completion' && break ;;
        help) verb='help' && break ;;
        esac
    done
    case $verb:$before in
    run:--from) mapfile -t COMPREPLY < <(compgen -f -- "$word") && return ;;
    create:--from) mapfile -t COMPREPLY < <(compgen -f -- "$word") && return ;;
    *:--socket) mapfile -t COMPREPLY < <(compgen -f -- "$word") && return ;;
    *:--config-file) mapfile -t COMPREPLY < <(compgen -f -- "$word") && return ;;
    *:--runtime-dir) mapfile -t COMPREPLY < <(compgen -f -- "$word") && return ;;
    *:--log-dir) mapfile -t COMPREPLY < <(compgen -f -- "$word") && return ;;
    *:--state-dir) mapfile -t COMPREPLY < <(compgen -f -- "$word") && return ;;
    *:--bridge) return ;;
    *:--subnet) return ;;
    *:--host-ip) return ;;
    *:--nft-owner) choices='yes no' ;;
    *:--kvm) choices='yes no' ;;
    *:--backend) choices='linux noop' ;;
    *:--log-format) choices='text journal' ;;
    *:--root) mapfile -t COMPREPLY < <(compgen -f -- "$word") && return ;;
    *:--from) choices=$(_volnet_vms) ;;
    *:--to) return ;;
    *:--seconds) return ;;
    *:--mode) choices='bridged dhcp vsock' ;;
    *:--manifest) mapfile -t COMPREPLY < <(compgen -f -- "$word") && return ;;
    *:--config) mapfile -t COMPREPLY < <(compgen -f -- "$word") && return ;;
    *:--network) return ;;
    *:--ip) return ;;
    *:--ip6) return ;;
    *:--addresses) return ;;
    *:--mac) return ;;
    *:--mtu) return ;;
    *:--policy) choices='open internet none' ;;
    *:--expose) return ;;
    *:--inner) return ;;
    *:--queues) return ;;
    *:--restart) choices='no on-failure always' ;;
    *:--owner) return ;;
    *:--run-as) choices='shared own' ;;
    *:--hypervisor) choices='cloud-hypervisor qemu firecracker' ;;
    *:--arg) return ;;
    *:--kernel) mapfile -t COMPREPLY < <(compgen -f -- "$word") && return ;;
    *:--cmdline) return ;;
    *:--initramfs) mapfile -t COMPREPLY < <(compgen -f -- "$word") && return ;;
    *:--rootfs) mapfile -t COMPREPLY < <(compgen -f -- "$word") && return ;;
    *:--disk) mapfile -t COMPREPLY < <(compgen -f -- "$word") && return ;;
    *:--share) mapfile -t COMPREPLY < <(compgen -f -- "$word") && return ;;
    *:--cloud-init) mapfile -t COMPREPLY < <(compgen -f -- "$word") && return ;;
    *:--cpus) return ;;
    *:--memory) return ;;
    *:--cpu-percent) return ;;
    *:--memory-max) return ;;
    *:--read-mb) return ;;
    *:--write-mb) return ;;
    *:--read-iops) return ;;
    *:--write-iops) return ;;
    *:--rx) return ;;
    *:--tx) return ;;
    *:--burst) return ;;
    *:--pps) return ;;
    *:--count) return ;;
    *:--timeout) return ;;
    *:--netns) mapfile -t COMPREPLY < <(compgen -f -- "$word") && return ;;
    *:--ifname) return ;;
    *:--tap) return ;;
    *:--nic) return ;;
    *:--sort) choices='name received sent packets denied limited cpu memory' ;;
    *:--interval) return ;;
    *:--wait) return ;;
    setup:*) choices="--dry-run --verbose --force --service --resolved --cni --root --socket --config-file --runtime-dir --log-dir --state-dir --bridge --subnet --host-ip --nft-owner --kvm --backend --log-format --json --help" ;;
    teardown:*) choices="--dry-run --verbose --force --service --resolved --cni --root --socket --config-file --runtime-dir --log-dir --state-dir --bridge --subnet --host-ip --nft-owner --kvm --backend --log-format --json --help" ;;
    networks:*) choices="--socket --config-file --runtime-dir --log-dir --json --help" ;;
    check:*) choices="--socket --config-file --runtime-dir --log-dir --json --help" ;;
    doctor:*) choices="--socket --config-file --runtime-dir --log-dir --json --help $(_volnet_vms)" ;;
    trace:*) choices="--from --to --seconds --socket --config-file --runtime-dir --log-dir --json --help $(_volnet_vms)" ;;
    serve:*) choices="--socket --config-file --runtime-dir --log-dir --state-dir --bridge --subnet --host-ip --nft-owner --kvm --backend --log-format --help" ;;
    run:*) choices="--mode --manifest --config --network --ip --ip6 --addresses --mac --mtu --isolated --policy --expose --inner --from --queues --vsock --rng --ephemeral --autostart --restart --owner --run-as --hypervisor --arg --kernel --cmdline --initramfs --rootfs --disk --share --cloud-init --cpus --memory --hugepages --balloon --cpu-percent --memory-max --read-mb --write-mb --read-iops --write-iops --rx --tx --burst --pps --dry-run --count --socket --config-file --runtime-dir --log-dir --json --help" ;;
    create:*) choices="--mode --manifest --config --network --ip --ip6 --addresses --mac --mtu --isolated --policy --expose --inner --from --queues --vsock --rng --ephemeral --autostart --restart --owner --run-as --hypervisor --arg --kernel --cmdline --initramfs --rootfs --disk --share --cloud-init --cpus --memory --hugepages --balloon --cpu-percent --memory-max --read-mb --write-mb --read-iops --write-iops --rx --tx --burst --pps --dry-run --socket --config-file --runtime-dir --log-dir --json --help" ;;
    start:*) choices="--socket --config-file --runtime-dir --log-dir --json --help $(_volnet_vms)" ;;
    stop:*) choices="--timeout --all --socket --config-file --runtime-dir --log-dir --json --help $(_volnet_vms)" ;;
    restart:*) choices="--timeout --socket --config-file --runtime-dir --log-dir --json --help $(_volnet_vms)" ;;
    pause:*) choices="--socket --config-file --runtime-dir --log-dir --json --help $(_volnet_vms)" ;;
    resume:*) choices="--socket --config-file --runtime-dir --log-dir --json --help $(_volnet_vms)" ;;
    snapshot:*) choices="--socket --config-file --runtime-dir --log-dir --json --help $(_volnet_vms)" ;;
    delete:*) choices="--timeout --socket --config-file --runtime-dir --log-dir --json --help $(_volnet_vms)" ;;
    attach:*) choices="--netns --ifname --tap --owner --network --ip --ip6 --addresses --mac --mtu --isolated --policy --expose --rx --tx --burst --pps --force --socket --config-file --runtime-dir --log-dir --json --help" ;;
    detach:*) choices="--netns --ifname --socket --config-file --runtime-dir --log-dir --json --help" ;;
    expose:*) choices="--nic --force --socket --config-file --runtime-dir --log-dir --json --help $(_volnet_vms)" ;;
    unexpose:*) choices="--socket --config-file --runtime-dir --log-dir --json --help $(_volnet_vms)" ;;
    policy:*) choices="--nic --socket --config-file --runtime-dir --log-dir --json --help $(_volnet_vms)" ;;
    limit:*) choices="--rx --tx --burst --pps --nic --socket --config-file --runtime-dir --log-dir --json --help $(_volnet_vms)" ;;
    get:*) choices="--socket --config-file --runtime-dir --log-dir --json --help $(_volnet_vms)" ;;
    list:*) choices="--watch --socket --config-file --runtime-dir --log-dir --json --help" ;;
    top:*) choices="--once --sort --interval --socket --config-file --runtime-dir --log-dir --help" ;;
    args:*) choices="--hypervisor --kernel-args --socket --config-file --runtime-dir --log-dir --json --help $(_volnet_vms)" ;;
    exec:*) choices="--socket --config-file --runtime-dir --log-dir --help $(_volnet_vms)" ;;
    console:*) choices="--socket --config-file --runtime-dir --log-dir --help $(_volnet_vms)" ;;
    vsock:*) choices="--wait --socket --config-file --runtime-dir --log-dir --help $(_volnet_vms)" ;;
    logs:*) choices="--messages --follow --socket --config-file --runtime-dir --log-dir --help $(_volnet_vms)" ;;
    monitor:*) choices="--socket --config-file --runtime-dir --log-dir --json --help" ;;
    metrics:*) choices="--socket --config-file --runtime-dir --log-dir --json --help" ;;
    call:*) choices="--more --socket --config-file --runtime-dir --log-dir --json --help" ;;
    version:*) choices="--socket --config-file --runtime-dir --log-dir --json --help" ;;
    completion:*) choices="--help bash zsh fish" ;;
    help:*) choices="--help setup teardown networks check doctor trace serve run create start stop restart pause resume snapshot delete attach detach expose unexpose policy limit get list top args exec console vsock logs monitor metrics call version completion help" ;;
    *) choices='setup teardown networks check doctor trace serve run create start stop restart pause resume snapshot delete attach detach expose unexpose policy limit get list top args exec console vsock logs monitor metrics call version completion help --json --help --version --config-file --socket --runtime-dir --log-dir' ;;
    esac
    mapfile -t COMPREPLY < <(compgen -W "$choices" -- "$word")
}

complete -F _volnet volnet
