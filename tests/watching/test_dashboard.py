"""infrastructure/grafana: the dashboard is whole, its panels do not overlap, and it takes any data source."""

import itertools
import re

from tests.watching.rules import DASHBOARD, GRAFANA, dashboard, panels, read

SOURCE = {"type": "prometheus", "uid": "${datasource}"}
COLUMNS = 24


def test_every_panel_is_one_of_its_own_and_explains_itself() -> None:
    board = dashboard()
    ids = [panel["id"] for panel in board["panels"]]
    assert len(ids) == len(set(ids))
    for panel in panels():
        assert panel["title"]
        assert panel["description"].endswith(".")
        assert panel["targets"]
        letters = [target["refId"] for target in panel["targets"]]
        assert len(letters) == len(set(letters))


def test_no_two_panels_are_in_one_place() -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in dashboard()["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= COLUMNS, panel["title"]
        for place in itertools.product(range(at["x"], at["x"] + at["w"]), range(at["y"], at["y"] + at["h"])):
            assert place not in taken, f"{panel['title']} lies on {taken[place]}"
            taken[place] = panel["title"]


def test_whichever_data_source_is_chosen_is_asked() -> None:
    board = dashboard()
    variables = {each["name"]: each for each in board["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    assert variables["datasource"]["query"] == "prometheus"
    asked = [*panels(), *(target for panel in panels() for target in panel["targets"])]
    asked += [each for each in variables.values() if each["type"] == "query"] + board["annotations"]["list"]
    for each in asked:
        assert each["datasource"] == SOURCE


def test_every_variable_is_there_and_used() -> None:
    known = {each["name"] for each in dashboard()["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)", DASHBOARD.read_text())) - {"__rate_interval", "__all"}
    assert used == known


def test_it_is_provisioned() -> None:
    (provider,) = read(GRAFANA / "provisioning" / "dashboards" / "wowevent.yml")["providers"]
    assert provider["options"]["path"] == "/etc/grafana/dashboards"
    (source,) = read(GRAFANA / "provisioning" / "datasources" / "prometheus.yml")["datasources"]
    assert (source["type"], source["url"]) == ("prometheus", "http://prometheus:9090")


def test_the_compose_file_puts_it_there() -> None:
    compose = read(GRAFANA.parents[1] / "docker-compose.events.yml")
    mounted = [each.removesuffix(":ro").split(":") for each in compose["services"]["grafana"]["volumes"]]
    assert ["./infrastructure/grafana/provisioning", "/etc/grafana/provisioning"] in mounted
    assert ["./infrastructure/grafana/dashboards", "/etc/grafana/dashboards"] in mounted
    assert "prometheus" in compose["services"]
    assert "event-bus" in compose["services"], "the name that prometheus.yml looks up"
