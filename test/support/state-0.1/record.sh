#!/usr/bin/env bash
# Records the state of 0.1 once more: what real runs of 0.1 leave in state/lab/ (see README.md).
#
# Usage: test/support/state-0.1/record.sh CHECKOUT DIRECTORY
#
#   CHECKOUT   a checkout of commit 8dc2a1e with its node_modules (npm ci)
#   DIRECTORY  where the record is put; nothing may be there yet
#
# As root. It starts a lab v01 of that checkout and ends it. The runs see a machine called bastion with
# the checkout in /srv/dce-upgrade, the lab's files in /srv/lab, and nothing else of this machine.
set -euo pipefail
self=$(realpath "$0") checkout=$(realpath "$1") out=$(realpath -m "$2")
lab=/tmp/dce-upgrade-lab-$(id -u)/v01

if [ "${3-}" != inside ]; then
  [ ! -e "$out" ] || { echo "$out is there already" >&2; exit 64; }
  cd "$checkout"
  [ -e "$lab/lab.json" ] || npm run lab up v01
  unshare --mount --uts bash "$self" "$checkout" "$out" inside
  npm run lab down v01
  exit
fi

# A machine of its own: its name, its directories
hostname bastion
. "$lab/env"
helm=$(dirname "$(command -v helm)") kubectl=$(dirname "$(command -v kubectl)")
syncer=$(dirname "$(command -v charts-syncer)")
mount -t tmpfs tmpfs /srv
mkdir -p /srv/dce-upgrade/node_modules /srv/lab /srv/media /srv/home /srv/tools/{helm,kubectl,charts-syncer}
cp -a "$checkout"/{lib,scripts,modules,package.json,.npmrc,site.example.yaml} /srv/dce-upgrade
mount --bind "$checkout/node_modules" /srv/dce-upgrade/node_modules
mount --bind "$helm" /srv/tools/helm
mount --bind "$kubectl" /srv/tools/kubectl
mount --bind "$syncer" /srv/tools/charts-syncer
mount --bind "$lab" /srv/lab
cp -a /srv/lab/bundles /srv/lab/original /srv/media
cd /srv/dce-upgrade
sed "s#$lab#/srv/lab#g" /srv/lab/site.yaml > site.yaml
registry=$(sed -n 's/^containerRegistry: //p' site.yaml)
clean=(env -i PATH=/srv/tools/helm:/srv/tools/kubectl:/srv/tools/charts-syncer:/usr/bin:/bin
  HOME=/srv/home LANG=C.UTF-8 KUBECONFIG=/srv/lab/kubeconfig
  CHART_REPO_USERNAME="$CHART_REPO_USERNAME" CHART_REPO_PASSWORD="$CHART_REPO_PASSWORD"
  REGISTRY_USERNAME="$REGISTRY_USERNAME" REGISTRY_PASSWORD="$REGISTRY_PASSWORD")

# run CODE SCRIPT ARGUMENTS…: a run of 0.1 that ends with this code
run() {
  local code=0 wanted=$1 script=$2
  shift 2
  echo "== $script $*"
  "${clean[@]}" "${more[@]}" npx zx "scripts/$script.mts" "$@" > /srv/said 2>&1 || code=$?
  [ "$code" = "$wanted" ] || { cat /srv/said; echo "exit $code, not $wanted" >&2; exit 1; }
}
more=()
by_hand() { "${clean[@]}" "$@" > /dev/null; }

cat > /srv/values.yaml << 'END'
replicaCount: 2
auth: {password: set-by-the-user}
END
install() {
  local place=$registry/release.daocloud.io/$1
  local keys=(--set "global.imageRegistry=$place")
  [ "$1" != spidernet ] || keys=(--set "spidernet.image.registry=$place" --set "ui.image.registry=$place")
  by_hand helm install "$1" "$2" -n "$1-system" --create-namespace -f /srv/values.yaml "${keys[@]}"
}
old() { ls -d /srv/media/original/"$1"-*.tgz | sort -V | head -n 1; }
new() { ls -d /srv/media/original/"$1"-*.tgz | sort -V | tail -n 1; }
bundle() { ls -d /srv/media/bundles/"$1"-*/*.bundle.tar | sort -V | tail -n 1; }
for module in mspider kairship skoala spidernet; do install $module "$(old $module)"; done

# mspider: a backup, a run that is refused, images, an upgrade that ends well
run 0 backup-values --module mspider --ticket 'CHG 1001'
more=(CHART_REPO_PASSWORD=made-up)
run 77 upgrade --module mspider --ticket 'CHG 1002'
more=()
run 0 sync-images --module mspider --bundle "$(bundle mspider)" --ticket 'CHG 1002'
run 0 upgrade --module mspider --ticket 'CHG 1002'
# then revisions by hand, so that the one that does not come up is the 11th: no test's own release
# gets there by chance
for number in 3 4 5 6 7 8 9 10; do
  by_hand helm upgrade mspider "$(new mspider)" -n mspider-system --reuse-values --set "note=by-hand-$number"
done
cp -a "$(ls -d /srv/media/original/mspider-*/mspider | sort -V | tail -n 1)" /srv/media/mspider
node -e '
  const { parse, stringify } = require("yaml")
  const [fs, path] = [require("fs"), "/srv/media/mspider/values.yaml"]
  const values = parse(fs.readFileSync(path, "utf8"))
  values.store.image.tag = "v9.9.9"
  fs.writeFileSync(path, stringify(values))'
more=(REGISTRY_USERNAME= REGISTRY_PASSWORD=)
run 1 upgrade --module mspider --via package --chart /srv/media/mspider --timeout 20s --ticket 'CHG 1003'
more=()
sed -n 's/^ *\(helm rollback .*\)/\1/p' /srv/said | head -n 1 > /srv/rollback
by_hand bash /srv/rollback

# kairship: CRDs, an upgrade, an import that is killed
run 0 update-crds --module kairship --via package --chart "$(new kairship)" --ticket 'CHG 1004'
run 0 upgrade --module kairship --ticket 'CHG 1005'
echo '== load-images, killed'
setsid "${clean[@]}" npx zx scripts/load-images.mts --module kairship --bundle "$(bundle kairship)" --node node1 > /srv/said 2>&1 &
until ls state/lab/kairship/load/*.imports > /dev/null 2>&1; do
  kill -0 $! || { cat /srv/said; echo 'it ended before' >&2; exit 1; }
done
kill -KILL -- -$! && wait $! || :

# skoala, spidernet: images, a backup
run 0 load-images --module skoala --bundle "$(bundle skoala)" --ticket 'CHG 1006'
run 0 backup-values --module skoala
run 0 backup-values --module spidernet

mkdir -p "$out/modules"
cp -a site.yaml site.example.yaml "$out"
cp -a modules/*.json "$out/modules"
cp -a state/lab "$out/lab"
# helm keeps the password of a chart repository in plain text; a lab's is random, and of no use
sed -i 's/^\( *password:\) .*/\1 made-up/' "$out"/lab/*/.helm/repositories.yaml
