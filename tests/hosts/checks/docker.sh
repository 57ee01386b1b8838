#!/bin/bash
# Docker beside volnet.
# shellcheck source=beside.sh
. "$(dirname "$0")/beside.sh"
is_up() { docker version; }
box() { # NAME HOST-PORT [OPTION...]
    docker run -d --name "$1" -p "$2:80" "${@:3}" box \
        busybox nc -ll -p 80 -e busybox echo "you are of docker" >/dev/null
}
container() { # NAMESPACE PORT
    asks "$1" $HOST "$2" "of docker"
}
# An image needs no network to be made.
make_image() {
    mkdir -p /run/box/bin /run/box/etc /run/box/tmp
    cp "$(command -v busybox)" /usr/local/bin/volnet /run/box/bin/
    tar -C /run/box -c . | docker import - box >/dev/null
}
# docs/INSTALL.md, "In a container", to the letter.
run_volnet() {
    local commands
    commands=$(sed -n '/^## In a container/,/^## /p' docs/INSTALL.md |
        sed -n '/^# [a-z]/{:more /\\$/{N;b more};s/^# //;p}')
    [ -n "$commands" ] || fail "docs/INSTALL.md shows none"
    eval "$commands"
    eventually volnet list
}

make_world
install_volnet
make_guests
well "volnet alone"
install_later
eventually is_up
well "docker installed and started"
make_image
box one 8081
eventually container world 8081
eventually container web 8081
well "docker run -p 8081:80"
docker exec one busybox ping -c 1 -W 3 $WORLD >/dev/null ||
    fail "a container does not reach the world"
iptables -F DOCKER-USER
well "DOCKER-USER flushed"
iptables -A DOCKER-USER -s 198.51.100.0/24 -j DROP
iptables -I DOCKER-USER -i docker0 -o eth9 -j ACCEPT
well "rules added to DOCKER-USER"
systemctl reload docker
well "docker reload"
systemctl restart docker
eventually is_up
well "docker restarted"
docker network create lab >/dev/null
box two 8082 --network lab
eventually container world 8082
well "docker network create, run -p 8082:80"
docker rm -f one two >/dev/null
docker network rm lab >/dev/null
# Docker gives a container a port that leads to a guest.
box three 8080
look "docker run -p 8080:80, which leads to web"
[ ${#lost[@]} = 0 ] || fail "cut off: ${lost[*]}"
type_hints
eventually container world 8080
[ -z "$(findings)" ] || fail "typed, and still found: $(findings)"
docker rm -f three >/dev/null
volnet expose web tcp:8080:80 >/dev/null
well "its container removed, web exposed again"
systemctl restart volnet
eventually volnet list
well "volnet restarted"
systemctl stop docker docker.socket
well "docker stopped"
systemctl start docker
eventually is_up

# What Docker needs of the host stays when volnet goes.
box four 8083
remove_volnet
container world 8083 || fail "a container's port is cut off since volnet went"
iptables -P FORWARD DROP
systemctl start volnet
eventually volnet list
make_guests
well "docker first, then volnet"
container world 8083 || fail "a container's port is cut off"
! volnet expose db tcp:8083:80 || fail "a container's port was taken"
docker rm -f four >/dev/null

remove_volnet
# Hypervisors run as root in this image.
findings() { found_of '"/dev/kvm", "hypervisors", "hypervisor_user"'; }
run_volnet
make_guests
well "volnet in a container"
docker restart -t 10 volnet >/dev/null
eventually volnet list
well "volnet's container restarted"
