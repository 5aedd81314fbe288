"""Every block of every page that is a program is run by a test, and it is known by which."""

import re

import pytest

from tests.documents import test_data, test_fragments, test_programs, test_shell, test_tutorial
from tests.documents.pages import ROOT, Block, blocks, pages, read

NO_PROGRAMS = {"", "text"}
"""Languages of what is only looked at: output, diagrams, and what is no command of this project."""
HERE = {
    module.__name__: module.RUNS for module in (test_data, test_fragments, test_programs, test_shell, test_tutorial)
}
ELSEWHERE = {
    ("clients/js/README.md", "js"): "tests/js/test_readme.py",
    ("clients/js/README.md", "sh"): "tests/js/test_readme.py",
    ("docs/http.md", "sh"): "tests/service/test_http_page.py",
    ("docs/http.md", "js"): "tests/js/test_stream_page.py",
    **{
        (page, "sh"): "tests/watching/test_runbook_pages.py"  # and on a real machine: tests/flows/test_runbook.py
        for page in pages()
        if page.startswith("docs/runbooks/")
    },
}
"""Who reads all blocks of that page and that language, and runs them."""


def program(block: Block) -> bool:
    return block.language not in NO_PROGRAMS


def unknown(found: list[Block]) -> list[str]:
    """Those that nobody runs."""
    ran = {block for run in HERE.values() for block in run}
    return [str(each) for each in found if each not in ran and (each.page, each.language) not in ELSEWHERE]


def test_every_block_is_run() -> None:
    found = [block for page in pages() for block in blocks(page) if program(block)]

    assert len(found) > 150
    assert unknown(found) == []


def test_a_block_that_nobody_runs_is_noticed() -> None:
    (block,) = read("docs/agents.md", "# Agents\n\n```python\nprint(1)\n```\n")

    assert unknown([block]) == ["docs/agents.md:3"]


def test_no_block_is_run_twice() -> None:
    ran = [block for run in HERE.values() for block in run]

    assert len(ran) == len(set(ran))
    assert not [str(block) for block in ran if (block.page, block.language) in ELSEWHERE]


@pytest.mark.parametrize("page", sorted({page for page, _ in ELSEWHERE}))
def test_who_runs_the_blocks_of_a_page_reads_it(page: str) -> None:
    for (one, language), where in ELSEWHERE.items():
        if one == page:
            test = (ROOT / where).read_text()
            assert any(word in test for word in page.split("/")[1:]), f"{where} does not know {page}"
            assert language == "sh" or blocks(page, language)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("```sh\nls\n```", [("sh", "ls\n")]),
        ("1. so\n\n   ```sh\n   ls\n     -l\n   ```\n", [("sh", "ls\n  -l\n")]),
        ("```\nbox\n```\n\n```python\n1\n```", [("", "box\n"), ("python", "1\n")]),
        ("`a`", []),
    ],
)
def test_blocks_are_found(text: str, found: list[tuple[str, str]]) -> None:
    assert [(each.language, each.text) for each in read("page.md", text)] == found


def test_a_fence_that_is_open_is_noticed() -> None:
    with pytest.raises(AssertionError, match=r"page\.md:1: this fence is not closed"):
        read("page.md", "```sh\nls\n")


# --- the index --------------------------------------------------------------------------------------------------------


def test_the_index_has_every_page_and_names_what_is_there() -> None:
    """A runbook is found by the runbooks' own index, a decision by its folder."""
    links = re.findall(r"\]\(([^)#:]+)\)", (ROOT / "docs" / "README.md").read_text())
    assert [link for link in links if not (ROOT / "docs" / link).exists()] == []
    assert {path.name for path in (ROOT / "docs").glob("*.md")} - {"README.md"} <= set(links)


def test_the_links_of_every_page_lead_somewhere() -> None:
    lost = [
        f"{page}: {target}"
        for page in pages()
        for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", (ROOT / page).read_text())
        if not (ROOT / page).parent.joinpath(target).exists()
    ]
    assert lost == []
