#!/usr/bin/env python3
"""Drives the simulator with pyral, Rally's own Python client, and checks what comes back.

Usage: pyral_check.py PORT|URL     (needs `pip install pyral`)

What a client that was written for the real server accepts is the best evidence for the shape of
the simulator's answers that can be had without an account.
"""

import re
import sys

import pyral.restapi
from pyral import Rally, RallyRESTAPIError
from pyral.context import RallyRESTAPIError as ContextError

KEY = "_full-access-key"
USER, PASSWORD = "connector@acme.example", "secret-password"
PAGED = 230

checks = 0


def check(what, holds):
    """Counts a step that holds; ends the run at the first that does not."""
    global checks
    if not holds:
        sys.exit(f"pyral: failed: {what}")
    checks += 1
    print(f"ok  {what}")


def connect(server, **credentials):
    return Rally(server=server, workspace="Acme", project="Payments", **credentials)


def connections(server):
    by_key = connect(server, apikey=KEY)
    check("connects with an API key", by_key.getWorkspace().Name == "Acme")
    check("names the subscription", by_key.subscriptionName() == "Acme Corporation")
    by_password = connect(server, user=USER, password=PASSWORD)
    check("connects with user and password", by_password.getProject().Name == "Payments")
    for credentials in ({"user": USER, "password": "wrong"}, {"apikey": "_nobody"}):
        try:
            connect(server, **credentials)
            refused = False
        except (RallyRESTAPIError, ContextError) as error:
            refused = "Invalid credentials" in str(error)
        check(f"refuses {'/'.join(credentials)} that is wrong", refused)
    return by_key, by_password


def look_around(rally):
    names = {workspace.Name for workspace in rally.getWorkspaces()}
    check("lists the workspaces", names == {"Acme", "Other"})
    check("lists the projects", [p.Name for p in rally.getProjects()] == ["Payments"])
    found = rally.getUserInfo(username="jane.roe@acme.example")
    check("finds a user", [user.DisplayName for user in found] == ["Jane Roe"])
    check("lists all users", len(rally.getAllUsers()) >= 4)
    values = rally.getAllowedValues("Defect", "State")
    check("reads allowed values", "Fixed" in values and "Submitted" in values)
    kinds = rally.get("TypeDefinition", fetch="TypePath,IDPrefix", query='TypePath = "PortfolioItem/Feature"')
    check("reads a type definition", [kind.IDPrefix for kind in kinds] == ["F"])
    attributes = rally.typedef("Changeset").Attributes
    check("knows the fields of Changeset", {"Branch", "Revision", "Artifacts"} <= {a.ElementName for a in attributes})


def work_items(rally):
    story = rally.create("Story", {"Name": "Log in with a key"})
    defect = rally.create("Defect", {"Name": "Printer jams & burns"})
    check("creates artifacts", bool(re.match(r"US\d+$", story.FormattedID) and re.match(r"DE\d+$", defect.FormattedID)))
    found = rally.get("Defect", fetch="FormattedID,Name,State", query=f'FormattedID = "{defect.FormattedID}"')
    rows = [(d.FormattedID, d.Name, d.State) for d in found]
    check("queries an artifact", rows == [(defect.FormattedID, "Printer jams & burns", "Submitted")])
    both = ['Name contains "jams"', 'State = "Submitted"', 'Owner = null']
    check("queries with three conditions", rally.get("Defect", query=both).resultCount >= 1)
    bad = rally.get("Defect", query="((A = 1) OR (B = 2) OR (C = 3))")
    check("reports a bad query", any("Could not parse" in error for error in bad.errors))
    return story, defect


def changesets(rally, story, defect):
    repository = rally.create("SCMRepository", {"Name": "core", "SCMType": "Git", "Uri": "https://git.example.test/core"})
    check("creates a repository", repository.SCMType == "Git")
    author = rally.getUserInfo(username="jane.roe@acme.example")[0]
    changeset = rally.create("Changeset", {
        "SCMRepository": repository.ref,
        "Revision": "9f2c0d6e4b1a",
        "CommitTimestamp": "2026-02-03T04:05:06Z",
        "Message": f"fix jam {defect.FormattedID}",
        "Author": author.ref,
        "Branch": "main",
        "Artifacts": [story.ref, defect.ref],
    })
    check("creates a changeset", changeset.Name == "core:9f2c0d6e4b1a")
    for action, path in (("M", "src/a.c"), ("A", "src/ü b.c")):
        rally.create("Change", {"Changeset": changeset.ref, "Action": action, "PathAndFilename": path})
    query = ['SCMRepository.Name = "core"', 'Revision = "9f2c0d6e4b1a"']
    again = rally.get("Changeset", fetch=True, query=query, instance=True)
    check("reads the changeset back", again.Author.UserName == "jane.roe@acme.example" and again.Branch == "main")
    check("normalizes its date", again.CommitTimestamp == "2026-02-03T04:05:06.000Z")
    check("reads its changes", [(c.Action, c.PathAndFilename) for c in again.Changes] == [("M", "src/a.c"), ("A", "src/ü b.c")])
    check("reads its artifacts", [a.FormattedID for a in again.Artifacts] == [story.FormattedID, defect.FormattedID])
    linked = rally.get("Story", fetch="Changesets", query=f'FormattedID = "{story.FormattedID}"', instance=True)
    check("finds it from the artifact", [c.Revision for c in linked.Changesets] == ["9f2c0d6e4b1a"])
    return repository, changeset


def paging(rally, repository):
    for number in range(PAGED):
        rally.create("Changeset", {
            "SCMRepository": repository.ref,
            "Revision": f"r{number:03}",
            "CommitTimestamp": "2026-02-03",
        })
    pages = rally.get("Changeset", fetch="Revision", query='Revision contains "r"', order="Revision DESC", pagesize=50)
    revisions = [changeset.Revision for changeset in pages]
    check(f"pages through {PAGED} changesets", revisions == [f"r{n:03}" for n in reversed(range(PAGED))])


def changes_of_state(rally, defect):
    rally.update("Defect", {"FormattedID": defect.FormattedID, "State": "Fixed"})
    found = rally.get("Defect", fetch="State", query=f'FormattedID = "{defect.FormattedID}"', instance=True)
    check("updates a state", found.State == "Fixed")
    try:
        rally.update("Defect", {"FormattedID": defect.FormattedID, "State": "Frozen"})
        refused = False
    except RallyRESTAPIError as error:
        refused = "Frozen is an invalid value" in str(error)
    check("refuses a state that is none", refused)


def deletions(rally, changeset, defect):
    check("deletes a changeset", rally.delete("Changeset", changeset.oid) is True)
    check("deletes it once", rally.delete("Changeset", changeset.oid) is False)
    check("deletes an artifact", rally.delete("Defect", defect.FormattedID) is True)
    entries = rally.get("RecycleBinEntry", fetch="ID,Name", query=f'ID = "{defect.FormattedID}"')
    check("finds it in the recycle bin", entries.resultCount == 1)


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    server = "127.0.0.1:" + sys.argv[1] if sys.argv[1].isdigit() else sys.argv[1].split("//")[-1].strip("/")
    # pyral always speaks TLS; the simulator never does.
    pyral.restapi.PROTOCOL = "http"
    by_key, by_password = connections(server)
    look_around(by_key)
    story, defect = work_items(by_password)
    repository, changeset = changesets(by_key, story, defect)
    paging(by_password, repository)
    changes_of_state(by_password, defect)
    deletions(by_password, changeset, defect)
    print(f"pyral: all {checks} checks passed")


if __name__ == "__main__":
    main()
