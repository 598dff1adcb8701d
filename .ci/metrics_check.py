"""Reads what `status --prometheus` prints with Prometheus's own parser, and checks that the examples use no other figures.

Usage: metrics_check.py PROGRAM. Needs the package prometheus_client.
"""

import pathlib
import re
import subprocess
import sys
import tempfile

from prometheus_client.parser import text_string_to_metric_families

EXAMPLES = pathlib.Path(__file__).resolve().parent.parent / "examples"


def main(program):
    with tempfile.TemporaryDirectory() as place:
        repository = pathlib.Path(place) / 'a "quoted"\nname.git'
        subprocess.run(["git", "init", "--quiet", "--bare", repository], check=True)
        subprocess.run([program, "install", "--repo", repository], check=True, stderr=subprocess.DEVNULL)
        config = repository / "rally-hook.toml"
        config.write_text('[rally]\nworkspace = "Acme"\napi_key = "_a-key"\n')
        config.chmod(0o600)
        command = [program, "status", "--prometheus", "--repo", repository]
        text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    known = set()
    for family in text_string_to_metric_families(text):
        known.update([family.name, family.name + "_total"] if family.type == "counter" else [family.name])
        for sample in family.samples:
            path = sample.labels.get("repository", str(repository))
            assert path == str(repository), f"{path!r} is not {str(repository)!r}"
    assert "rally_hook_pending" in known, text
    for example in ["prometheus-alerts.yml", "grafana-dashboard.json"]:
        used = set(re.findall(r"rally_hook_\w+", (EXAMPLES / example).read_text()))
        assert used and used <= known, f"{example} uses unknown figures: {sorted(used - known)}"
    print(f"{len(known)} names of figures, all read by Prometheus's parser")


main(sys.argv[1])
