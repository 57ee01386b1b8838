# bash completion for volnet(8)

_volnet_vms() {
    volnet list --json 2>/dev/null | jq -r '.vms[].name' 2>/dev/null
}

_volnet() {
    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]} verb=${COMP_WORDS[1]}
    local verbs='serve setup teardown create run start stop restart delete get list networks call
        version help'
    local folders='--state-dir --runtime-dir --log-dir'
    local network='--mode --manifest --config --ip --mac --ephemeral --dry-run'
    local machine='--hypervisor --kernel --initramfs --rootfs --cpus --memory --cmdline'
    local choices='--socket --json'

    case $before in
    --mode) choices='bridged dhcp vsock' ;;
    --hypervisor) choices='qemu cloud-hypervisor firecracker' ;;
    --socket | --state-dir | --runtime-dir | --log-dir | --manifest | --config | --kernel | \
        --initramfs | --rootfs)
        mapfile -t COMPREPLY < <(compgen -f -- "$word")
        return
        ;;
    --ip | --mac | --cpus | --memory | --cmdline) return ;;
    volnet) choices=$verbs ;;
    *)
        case $verb in
        serve) choices="$choices $folders" ;;
        setup) choices="$choices $folders --dry-run" ;;
        teardown) choices="$choices $folders --dry-run --force" ;;
        create) choices="$choices $network" ;;
        run) choices="$choices $network $machine" ;;
        start | stop | restart | delete | get)
            [[ $word == -* ]] || choices=$(_volnet_vms)
            ;;
        esac
        ;;
    esac
    mapfile -t COMPREPLY < <(compgen -W "$choices" -- "$word")
}

complete -F _volnet volnet
