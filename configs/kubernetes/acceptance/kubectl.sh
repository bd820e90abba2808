#!/bin/sh
# Stands for kubectl in the test of docs/kubernetes.md. It keeps what would be in the cluster in $CLUSTER, and refuses
# what it does not know.
set -eu
refuse() { echo "kubectl: this test does not know: $*" >&2; exit 1; }
verb=$1; shift
case $verb in
create)
  kind=$1; shift
  case $kind in
  secret) type=$1; shift ;;
  configmap) type=generic ;;
  *) refuse create "$kind" ;;
  esac
  name=$1; shift
  dir=$CLUSTER/$kind/$name
  rm -rf "$dir"; mkdir -p "$dir"
  for a; do
    v=${a#*=}
    case $type.$a in
    generic.--from-file=*=*) cp "${v#*=}" "$dir/${v%%=*}" ;;
    generic.--from-file=*) cp "$v" "$dir/$(basename "$v")" ;;
    tls.--cert=*) cp "$v" "$dir/tls.crt" ;;
    tls.--key=*) cp "$v" "$dir/tls.key" ;;
    *.--dry-run=client | *.-o | *.yaml) ;;
    *) refuse "$a" ;;
    esac
  done ;;
apply)
  case $1 in
  -k) test -f "$2/kustomization.yaml"; echo "$2" >> "$CLUSTER/applied" ;;
  -f) cat ;;
  *) refuse apply "$@" ;;
  esac ;;
exec) # is run by the test itself, in the pod
  echo "$@" >> "$CLUSTER/execs" ;;
*) refuse "$verb" "$@" ;;
esac
