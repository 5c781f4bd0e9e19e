#!/usr/bin/env bash
# One job on a TPU VM: create or reuse it, install this checkout, run on all workers, and go on after a preemption.
#
#   ZONE=us-east5-a TYPE=v6e-8 launch/tpu_vm.sh +value=power run.mirror=gs://BUCKET/runs
#
# Settings are variables of the environment, and the arguments are those of COMMAND: train, crest, generate, evaluate.
# A token for gated models comes from Secret Manager, where the workers read it: HF_SECRET is the secret's name.
set -euo pipefail
NAME=${NAME:-jaxalign} TYPE=${TYPE:-v6e-8} VERSION=${VERSION:-v2-alpha-tpuv6e} SPOT=${SPOT:-true}
COMMAND=${COMMAND:-train} HF_SECRET=${HF_SECRET:-} TRIES=${TRIES:-50} PAUSE=${PAUSE:-60}
: "${ZONE:?set ZONE, such as us-east5-a}"
if [ "$SPOT" = true ] && [[ " $* " != *" run.mirror=gs://"* ]]; then
  echo "error: add run.mirror=gs://BUCKET/PATH, without which a preemption loses the run, or set SPOT=false" >&2
  exit 2
fi

tpu() { gcloud compute tpus tpu-vm "$@" --zone="$ZONE" --quiet; }
state() { tpu describe "$NAME" --format='value(state)' 2>/dev/null || true; }

ready() { # a spot VM that is not READY never is again
  local state spot=()
  state=$(state)
  [ "$state" != READY ] || return 0
  [ -z "$state" ] || tpu delete "$NAME"
  [ "$SPOT" != true ] || spot=(--spot)
  tpu create "$NAME" --accelerator-type="$TYPE" --version="$VERSION" "${spot[@]}"
}

# shellcheck disable=SC2016  # the workers expand $HOME
install() { # on every worker before any of them begins, because the others would run into a time-out
  git -C "$(dirname "$0")/.." archive --prefix=jaxalign/ --output="$work/jaxalign.tar.gz" HEAD &&
    tpu scp "$work/jaxalign.tar.gz" "$NAME:" --worker=all &&
    tpu ssh "$NAME" --worker=all --command='python3 -m pip install -q --user uv &&
      python3 -m uv venv -q --clear --python 3.12 ~/env && python3 -m uv pip install -q --python ~/env/bin/python \
        "jaxalign[tpu,gcs] @ file://$HOME/jaxalign.tar.gz"'
}

run() { # port 8476 is one that Google's firewall opens; MEGASCALE_* of an earlier job would hang this one
  local addresses hosts token=
  addresses=$(tpu describe "$NAME" --format='value(networkEndpoints[].ipAddress)') || return
  IFS=';' read -ra hosts <<<"$addresses"
  # shellcheck disable=SC2016
  local number='$(curl -sf -H Metadata-Flavor:Google metadata/computeMetadata/v1/instance/attributes/agent-worker-number)'
  [ -z "$HF_SECRET" ] || token="HF_TOKEN=\$(gcloud secrets versions access latest --secret=$HF_SECRET) && export HF_TOKEN &&"
  tpu ssh "$NAME" --worker=all --command="unset \${!MEGASCALE_@}; $token
    export JAX_COORDINATOR_ADDRESS=${hosts[0]}:8476 JAX_NUM_PROCESSES=${#hosts[@]} JAX_PROCESS_ID=$number &&
    exec ~/env/bin/python -m jaxalign.$COMMAND $(printf '%q ' "$@")"
}

work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
for ((try = 1; try <= TRIES; try++)); do
  status=0
  { ready && install && run "$@"; } || status=$?
  [ "$status" -ne 0 ] || exit 0
  sleep "$PAUSE" # until a preemption shows in the state
  [ "$(state)" != READY ] || exit "$status"
  echo "try $try of $TRIES: $NAME is gone (status $status); beginning again" >&2
done
exit "$status"
