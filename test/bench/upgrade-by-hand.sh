# The manual's commands for mspider (mspider.en.md:113-183), as a careful engineer types them, and
# a look whether the workloads come up. $repository, $imageRegistry and $version are the site's.
set -euo pipefail
export LC_ALL=C HELM_CONFIG_HOME=$PWD/config HELM_CACHE_HOME=$PWD/cache HELM_DATA_HOME=$PWD/data

echo "at $EPOCHREALTIME"
helm repo list || true # there is none yet
printf %s "$CHART_REPO_PASSWORD" |
  helm repo add mspider-release "$repository" \
    --username "$CHART_REPO_USERNAME" --password-stdin
helm repo update mspider-release
helm search repo mspider-release/mspider --versions
helm get values mspider -n mspider-system -o yaml > bak.yaml
helm upgrade mspider mspider-release/mspider \
  -n mspider-system \
  -f ./bak.yaml \
  --set global.imageRegistry="$imageRegistry" \
  --version "$version"

echo "at $EPOCHREALTIME"
for workload in $(kubectl get deployments,statefulsets,daemonsets -n mspider-system -o name); do
  kubectl rollout status "$workload" -n mspider-system --timeout=2m
done
echo "at $EPOCHREALTIME"
