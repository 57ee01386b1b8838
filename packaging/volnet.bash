# bash completion for volnet(8)

_volnet_vms() {
    volnet list --json 2>/dev/null | jq -r '.vms[].name' 2>/dev/null
}

_volnet() {
    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]} verb=${COMP_WORDS[1]}
    local verbs='serve setup teardown create run start stop restart delete expose unexpose policy limit
        get list networks args exec console logs check monitor call version help'
    local choices='--json --socket --config-file --runtime-dir --log-dir --help'
    local host='--state-dir --bridge --subnet --host-ip --nft-owner --kvm --backend'
    local vm='--mode --manifest --config --network --ip --mac --mtu --queues --isolated
        --ephemeral --autostart --restart --hypervisor --kernel --initramfs --rootfs --disk --cpus
        --memory --cmdline --expose --policy --rx --tx --burst --pps --dry-run'

    case $before in
    --mode) choices='bridged dhcp vsock' ;;
    --policy) choices='open internet none' ;;
    --restart) choices='no on-failure always' ;;
    --nft-owner | --kvm) choices='yes no' ;;
    --backend) choices='linux noop' ;;
    --hypervisor) choices='cloud-hypervisor qemu firecracker' ;;
    --socket | --config-file | --runtime-dir | --log-dir | --state-dir | --root | \
        --manifest | --config | --kernel | --initramfs | --rootfs | --disk)
        mapfile -t COMPREPLY < <(compgen -f -- "$word")
        return
        ;;
    --bridge | --subnet | --host-ip | --network | --nic | --ip | --mac | --mtu | --queues | --cpus | \
        --memory | --cmdline | --expose | --timeout) return ;;
    *)
        case $verb in
        "$word" | help) choices=$verbs ;;
        serve) choices="$choices $host" ;;
        setup | teardown) choices="$choices $host --dry-run --force --service --root" ;;
        create | run) choices="$choices $vm" ;;
        start | get | unexpose | args | exec | console) choices="$choices $(_volnet_vms)" ;;
        expose | policy) choices="$choices --nic $(_volnet_vms)" ;;
        limit) choices="$choices --rx --tx --burst --pps --nic $(_volnet_vms)" ;;
        logs) choices="$choices --follow $(_volnet_vms)" ;;
        stop | restart | delete) choices="$choices --timeout $(_volnet_vms)" ;;
        call) choices="$choices --more" ;;
        esac
        ;;
    esac
    mapfile -t COMPREPLY < <(compgen -W "$choices" -- "$word")
}

complete -F _volnet volnet
