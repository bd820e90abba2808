#!/usr/bin/env bash
# Plays a fleet on this host: an etcd and three agents share a licence of six slots. One waits for what another
# releases, one dies, one is cut off from etcd. It ends with 0 only if all was seen that docs/fleet.md promises of that.
# It needs etcd (Debian: etcd-server), writes to a temporary folder alone, and listens on 127.0.0.1.
#
#   demo.sh PROGRAM      PROGRAM is the usher to play with
set -euo pipefail
usher=$(realpath "${1:?name the program: demo.sh bin/usher}")
command -v etcd >/dev/null || { echo "there is no etcd (apt-get install etcd-server)"; exit 1; }
unset USHER_SOCKET USHER_CONFIG USHER_INSTANCE

dir=$(mktemp -d /tmp/usher-fleet-XXXXXX)
started=()
interrupted=
finish() {
  code=$?
  trap '' INT TERM HUP
  set +e # the terminal may be gone; the folder goes nevertheless
  for pid in "${started[@]}"; do kill -CONT "$pid" 2>/dev/null || true; kill -KILL "$pid" 2>/dev/null || true; done
  [ $code = 0 ] || [ "$interrupted" ] || { echo "what was promised was not seen; the logs:"; tail -n 5 "$dir"/*.log; }
  wait 2>/dev/null || true
  rm -rf "$dir"
}
trap finish EXIT
trap 'interrupted=yes; exit 130' INT TERM HUP

step() { printf '\n\033[1m%s\033[0m\n' "$*"; }
port() { # one at which nobody listens
  local p
  while p=$((20000 + RANDOM % 20000)); (exec 3<>"/dev/tcp/127.0.0.1/$p") 2>/dev/null; do :; done
  echo "$p"
}
run() { # NAME COMMAND…: in the background; its number is in $pid
  local name=$1
  shift
  "$@" >"$dir/$name.log" 2>&1 &
  pid=$!
  started+=("$pid")
  disown "$pid" # that it is killed is no news
}
on() { # HOST COMMAND…
  local host=$1
  shift
  "$usher" "$@" --socket "$dir/$host.sock"
}
take() { on "$1" acquire --pool streams --n "$2" --ttl 10m --wait "${3:-60s}"; }
until_state() { # HOST STATE
  for _ in $(seq 300); do
    [[ $(on "$1" fleet status 2>/dev/null) == "This host"*": $2"* ]] && return
    sleep 0.1
  done
  echo "$1 is not $2 after 30 s"
  return 1
}

step "A vendor signs a licence for six slots of a whole site."
"$usher" vendor keygen --kid demo --out "$dir" >/dev/null
"$usher" vendor sign --key "$dir/demo.key" --product demo --licensee "Demo site" --limit streams=6 --scope site \
  --expires 30d --out "$dir/site.lic" >"$dir/sign.log" 2>&1
echo "The agents of all hosts together may have six slots, and never a seventh."

step "An etcd starts, and three agents. The third reaches etcd through a proxy, which can be stopped."
etcd=$(port) peer=$(port) proxy=$(port)
run etcd etcd --data-dir "$dir/etcd" --log-level error --listen-client-urls "http://127.0.0.1:$etcd" \
  --advertise-client-urls "http://127.0.0.1:$etcd" --listen-peer-urls "http://127.0.0.1:$peer" \
  --initial-advertise-peer-urls "http://127.0.0.1:$peer" --initial-cluster "default=http://127.0.0.1:$peer"
run proxy etcd gateway start --endpoints "127.0.0.1:$etcd" --listen-addr "127.0.0.1:$proxy"
way=$pid
declare -A agent
for host in host-1 host-2 host-3; do
  at=$etcd
  [ $host != host-3 ] || at=$proxy
  cat >"$dir/$host.yaml" <<EOF
product: demo
license: {path: $dir/site.lic, trust: [{kid: demo, key_file: $dir/demo.pub}]}
socket: {path: $dir/$host.sock}
state: {dir: $dir/$host/state, runtime_dir: $dir/$host/run}
fleet: {endpoints: ['http://127.0.0.1:$at'], ttl: 5s, name: $host}
EOF
  run "$host" "$usher" agent --config "$dir/$host.yaml"
  agent[$host]=$pid
done
for host in host-1 host-2 host-3; do on $host health --ready --wait 30s >/dev/null; done

step "Each host takes slots: three, two and one. That is all there is."
take host-1 3 >/dev/null
two=$(take host-2 2)
take host-3 1 >/dev/null
on host-1 fleet status
if take host-3 1 0s 2>/dev/null; then echo "a seventh slot was granted"; exit 1; fi
echo "A seventh slot is denied."

step "host-3 waits for a slot, and host-2 releases two."
take host-3 1 >"$dir/waiter" &
waiter=$!
sleep 0.5
[ ! -s "$dir/waiter" ] || { echo "the waiter did not wait"; exit 1; }
began=$(date +%s%N)
on host-2 release "$two" >/dev/null
wait $waiter
echo "The waiter on host-3 has a slot that was freed on host-2, after $((($(date +%s%N) - began) / 1000000)) ms."

step "host-1 is killed with its three slots. Others get them once its fence is over by their clocks."
kill -KILL "${agent[host-1]}"
began=$(date +%s)
take host-2 3 >/dev/null
echo "host-2 has three of them, after $(($(date +%s) - began)) s."

step "host-3 is cut off from etcd."
kill -STOP "$way"
began=$(date +%s)
for _ in $(seq 300); do
  [[ $(on host-3 pools --json) == *'"budget": 0'* ]] && break
  sleep 0.1
done
after=$(($(date +%s) - began))
state=$(on host-3 fleet status)
echo "$state"
if take host-3 1 0s 2>/dev/null; then echo "a host that is cut off grants beyond its fence"; exit 1; fi
[[ $state == "This host"*": fenced"* ]]
[ $after -le 5 ] || { echo "it has stopped after $after s only"; exit 1; }
echo "It grants nothing any more since $after s after the cut, before anybody else may have its slots."

step "The way to etcd is open again."
kill -CONT "$way"
until_state host-3 member
on host-2 fleet status
step "All was seen."
