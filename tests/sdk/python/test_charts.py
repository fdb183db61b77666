"""Every type of chart, drawn by matplotlib, pandas and seaborn, and read through the SDK's strict classes.

A program draws several figures, as importing these packages takes its time.
"""

import base64
import struct

import pytest
from conftest import done
from daytona.common.charts import (
    BarChart,
    BoxAndWhiskerChart,
    Chart,
    ChartType,
    CompositeChart,
    LineChart,
    PieChart,
    ScatterChart,
)

PYPLOT = "import matplotlib.pyplot as plt\n"
EVERYTHING = (
    PYPLOT
    + """
import datetime, warnings
import numpy as np
import pandas as pd
import seaborn as sns
warnings.simplefilter("ignore")
frame = pd.DataFrame({"x": ["a", "a", "b", "b"], "y": [1, 2, 3, 5], "h": ["u", "v", "u", "v"]})
"""
)
DAY = 86400
NEW_YEAR = 1704067200  # 2024, UTC


@pytest.fixture
def draw(sandbox):
    """The charts of a program that prints nothing."""

    async def draw(*figures, imports=EVERYTHING):
        code = imports + "".join(f"{figure}\nplt.show()\n" for figure in figures)
        response = await done(sandbox.process.code_run(code))
        assert (response.exit_code, response.result) == (0, "")
        charts = response.artifacts.charts
        for chart in charts:
            png = base64.b64decode(chart.png)
            width, height = struct.unpack(">II", png[16:24])
            assert png.startswith(b"\x89PNG") and width > 10 and height > 10
        return charts

    return draw


async def test_line(draw):
    [chart] = await draw(
        """
plt.plot([1, 2, 3], [1, 4, 9], label="squares")
plt.plot([1, 2, 3], [1, float("nan"), 3], label="gap")
plt.errorbar([1, 2], [3, 4], yerr=[0.1, 0.2], label="errors")
plt.axhline(2)
plt.title("Lines"); plt.xlabel("n"); plt.ylabel("value"); plt.yscale("log"); plt.xticks([1, 2, 3])
""",
        imports=PYPLOT,
    )
    assert isinstance(chart, LineChart) and chart.type == ChartType.LINE
    assert (chart.title, chart.x_label, chart.y_label) == ("Lines", "n", "value")
    assert (chart.x_ticks, chart.x_tick_labels) == ([1, 2, 3], ["1", "2", "3"])
    assert (chart.x_scale, chart.y_scale) == ("linear", "log")
    assert [(line.label, line.points) for line in chart.elements] == [
        ("squares", [[1, 1], [2, 4], [3, 9]]),
        ("gap", [[1, 1], [3, 3]]),
        ("errors", [[1, 3], [2, 4]]),
    ]


async def test_dates_are_numbers(draw):
    charts = await draw(
        "plt.plot([datetime.datetime(2024, 1, d) for d in (1, 2, 3)], [1, 2, 3])",
        "pd.Series([1, 2, 3], index=pd.date_range('2024-01-01', periods=3)).plot()",
        "sns.lineplot(x=pd.date_range('2024-01-01', periods=3), y=[1, 2, 3])",
    )
    assert len(charts) == 3
    for chart in charts:
        assert isinstance(chart, LineChart) and (chart.x_scale, chart.y_scale) == ("datetime", "linear")
        assert chart.elements[0].points == [[NEW_YEAR, 1], [NEW_YEAR + DAY, 2], [NEW_YEAR + 2 * DAY, 3]]
        assert NEW_YEAR in chart.x_ticks and len(chart.x_ticks) == len(chart.x_tick_labels)


async def test_scatter(draw):
    charts = await draw(
        "plt.scatter([1, 2], [3, 4])",
        "plt.plot([1, 2], [3, 4], 'o')",
        "pd.DataFrame({'a': [1, 2], 'b': [3, 4]}).plot.scatter('a', 'b')",
        "sns.scatterplot(x=[1, 2], y=[3, 4])",
    )
    assert len(charts) == 4
    for chart in charts:
        assert isinstance(chart, ScatterChart)
        assert [element.points for element in chart.elements] == [[[1, 3], [2, 4]]]


async def test_bars(draw):
    bars = {
        "plt.bar(['a', 'b'], [4, 2.5])": [("a", "4"), ("b", "2.5")],
        "plt.bar(['a'], [4])": [("a", "4")],
        "plt.barh(['a', 'b'], [4, 2.5])": [("a", "4"), ("b", "2.5")],
        "plt.bar([1, 2], [3, float('nan')])": [("1", "3")],
        "plt.hist([1, 2, 2, 3], bins=2)": [("1.5", "1"), ("2.5", "3")],
        "pd.Series([4, 2.5], index=['a', 'b']).plot.bar()": [("a", "4"), ("b", "2.5")],
        "sns.countplot(frame, x='x')": [("a", "2"), ("b", "2")],
        "sns.barplot(frame, x='x', y='y', errorbar=None)": [("a", "1.5"), ("b", "4")],
        "plt.bar([datetime.date(2024, 1, 1), datetime.date(2024, 1, 2)], [1, 2])": [
            ("2024-01-01", "1"),
            ("2024-01-02", "2"),
        ],
    }
    charts = await draw(*bars)
    assert all(isinstance(chart, BarChart) for chart in charts)
    assert [[(bar.label, bar.value) for bar in chart.elements] for chart in charts] == list(bars.values())


async def test_groups_and_sides_of_bars(draw):
    charts = await draw(
        "pd.DataFrame({'u': [1, 3], 'v': [2, 5]}, index=['a', 'b']).plot.bar()",
        "sns.barplot(frame, x='x', y='y', hue='h')",
        "plt.barh(['a'], [3]); plt.xlabel('value'); plt.ylabel('name')",
    )
    for chart, (u, v) in zip(charts, (("u", "v"), ("_container0", "_container1"))):
        bars = [(bar.label, bar.group, bar.value) for bar in chart.elements]
        assert bars == [("a", u, "1"), ("b", u, "3"), ("a", v, "2"), ("b", v, "5")]
        assert chart.x_scale == "categorical" and chart.x_tick_labels == ["a", "b"]
    across = charts[2]
    assert (across.x_label, across.y_label, across.x_tick_labels) == ("name", "value", ["a"])


async def test_pie(draw):
    charts = await draw(
        "plt.pie([1, 2, 1], labels=['a', 'b', 'c'], autopct='%d%%', radius=2)",
        "pd.Series([1, 2, 1], index=['a', 'b', 'c']).plot.pie(radius=2, autopct='%d%%')",
    )
    assert len(charts) == 2
    for chart in charts:
        assert isinstance(chart, PieChart)
        slices = [(part.label, part.angle, part.radius) for part in chart.elements]
        assert slices == [("a", 90, 2), ("b", 180, 2), ("c", 90, 2)]
        assert [part.additional_properties["autopct"] for part in chart.elements] == ["25%", "50%", "25%"]


async def test_boxes(draw):
    charts = await draw(
        "plt.boxplot([[1, 2, 3, 4, 50], [2, 3, 4]]); plt.xticks([1, 2], ['one', 'two'])",
        "plt.boxplot([[1, 2, 3, 4, 50], [2, 3, 4]], patch_artist=True, notch=True); plt.xticks([1, 2], ['one', 'two'])",
        "plt.boxplot([[1, 2, 3, 4, 50], [2, 3, 4]], vert=False); plt.yticks([1, 2], ['one', 'two'])",
        "pd.DataFrame({'one': [1, 2, 3, 4, 50], 'two': [2, 3, 4, None, None]}).plot.box()",
        "sns.boxplot({'one': [1, 2, 3, 4, 50], 'two': [2, 3, 4]})",
    )
    assert len(charts) == 5
    for chart in charts:
        assert isinstance(chart, BoxAndWhiskerChart)
        first, second = chart.elements
        assert (first.label, second.label) == ("one", "two")
        numbers = (first.min, first.first_quartile, first.median, first.third_quartile, first.max, first.outliers)
        assert numbers == (1, 2, 3, 4, 4, [50])
        assert (second.min, second.median, second.max, second.outliers) == (2, 3, 4, [])


async def test_several_charts_in_one_figure(draw):
    first, second = await draw(
        """
figure, (left, right) = plt.subplots(1, 2)
figure.suptitle("Both")
left.plot([1, 2], [3, 4]); left.set_title("left")
right.bar(["x"], [3])
""",
        "sns.catplot(frame, x='x', y='y', kind='box', col='h')",
    )
    assert isinstance(first, CompositeChart) and first.title == "Both"
    left, right = first.elements
    assert (left.type, left.title, right.type) == ("line", "left", "bar")
    assert left.additional_properties["elements"][0]["points"] == [[1, 3], [2, 4]]
    assert right.additional_properties["elements"] == [{"label": "x", "group": "_container0", "value": "3"}]
    assert right.additional_properties["x_tick_labels"] == ["x"]
    assert [part.type for part in second.elements] == ["box_and_whisker"] * 2
    for part in second.elements:
        assert [box["label"] for box in part.additional_properties["elements"]] == ["a", "b"]


async def test_what_cannot_be_described_comes_as_a_picture(draw):
    charts = await draw(
        "plt.imshow(np.eye(3)); plt.colorbar(); plt.title('t')",
        "sns.heatmap(np.eye(3)); plt.title('t')",
        "sns.violinplot(frame, x='x', y='y'); plt.title('t')",
        "plt.subplot(projection='3d').plot([1, 2], [3, 4], [5, 6]); plt.title('t')",
        "plt.figure().suptitle('t')",
        "plt.plot([1, 2]); plt.title('t'); plt.gca().lines[0].get_label = lambda: 1 / 0",
    )
    assert len(charts) == 6
    for chart in charts:
        assert type(chart) is Chart and chart.type == ChartType.UNKNOWN
        assert chart.title == "t" and chart.elements == []


async def test_figures_are_sent_once_and_when_they_are_shown(draw):
    async def titles(code):
        return [chart.title for chart in await draw(imports=PYPLOT + code)]

    one, two = "plt.plot([1]); plt.title('1')\n", "plt.plot([2]); plt.title('2')\n"
    assert await titles(one + "plt.show(); plt.show()\n" + two + "plt.show()") == ["1", "2"]
    assert await titles("plt.figure()\n" + one + "plt.figure()\n" + two + "plt.show()") == ["1", "2"]
    assert await titles(one) == ["1"]
    assert await titles(one + "plt.savefig('saved.png')") == []
    assert await titles(one + "plt.close()") == []


async def test_a_program_that_fails_has_its_charts(sandbox):
    response = await done(sandbox.process.code_run(PYPLOT + "plt.plot([1]); 1/0"))
    assert response.exit_code == 1 and "ZeroDivisionError" in response.result
    assert [chart.type for chart in response.artifacts.charts] == ["line"]


async def test_a_program_can_neither_forge_nor_spoil_charts(sandbox):
    forged = """
import os
os.write(4, b'{"type": "bar", "elements": [{"label": "x", "value": 3}], "x_ticks": ["Jan"]}\\n{"type": NaN}\\njunk\\n')
import matplotlib.pyplot as plt
plt.plot([1]); plt.show()
file = open('other', 'w+')
os.dup2(file.fileno(), 4)
plt.plot([1]); plt.show()
print(len(open('other').read()))
"""
    response = await done(sandbox.process.code_run(forged))
    assert (response.exit_code, response.result) == (0, "0\n")
    assert [chart.type for chart in response.artifacts.charts] == ["unknown", "line"]
