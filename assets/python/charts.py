"""Describes the figures that a program shows, or leaves open when it ends, and sends them with their pictures.

A figure is sent once: by `show()`, which then closes it as a window that was closed would be, or at the end of the
program unless it was saved to a file, which tells that the program has done with it what it wanted.

Nothing here may disturb the program: what cannot be described is sent as `unknown` with its picture. Numbers are finite,
dates are seconds since 1970, and the values of bars are text, because that is what clients accept.
"""

import atexit
import base64
import datetime
import functools
import io
import json
import math
import os
import re
import sys
import warnings
import weakref

import matplotlib
from matplotlib import _pylab_helpers, dates
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection, PolyCollection
from matplotlib.container import BarContainer, ErrorbarContainer, StemContainer
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Wedge
from matplotlib.ticker import FixedFormatter, FuncFormatter

#: Largest description without its picture, in bytes; a larger one is not sent.
DESCRIPTION = 8 * 1024 * 1024
#: All that is sent, in bytes; the daemon takes no more (src/process/code/artifacts.rs).
TOTAL = 64 * 1024 * 1024


def install(pyplot, descriptor):
    if not hasattr(pyplot.show, "_toolboxd"):
        Capture(pyplot, Sink(descriptor)).install()


class Sink:
    """The descriptor that charts go to. A program may have closed it and opened another thing in its place."""

    def __init__(self, descriptor):
        self.descriptor = descriptor
        self.identity = self.identify()

    def identify(self):
        status = os.fstat(self.descriptor)
        return status.st_dev, status.st_ino

    def send(self, chart):
        line = json.dumps(chart, allow_nan=False).encode() + b"\n"
        if self.identify() != self.identity:
            return
        if os.fstat(self.descriptor).st_size + len(line) > TOTAL:
            print("[toolboxd: a chart was not kept: there are more than 64 MiB of them]", file=sys.stderr)
            return
        os.write(self.descriptor, line)  # appends as a whole, whoever else does


class Capture:
    def __init__(self, pyplot, sink):
        self.pyplot, self.sink = pyplot, sink
        self.process = os.getpid()
        self.savefig = Figure.savefig
        self.sent, self.finished = weakref.WeakSet(), weakref.WeakSet()
        #: What was drawn by `bxp`, as what it draws does not tell that it is a box.
        self.boxes = weakref.WeakKeyDictionary()

    def install(self):
        original, bxp, savefig = self.pyplot.show, Axes.bxp, Figure.savefig

        @functools.wraps(original)
        def show(*args, **kwargs):
            figures = open_figures()
            self.report(figures)
            try:
                # The others have nothing to show, and would say so.
                if any(getattr(figure.canvas, "required_interactive_framework", None) for figure in figures):
                    return original(*args, **kwargs)
            finally:
                self.pyplot.close("all")

        @functools.wraps(bxp)
        def keeping_bxp(axes, *args, **kwargs):
            if args:
                args = (list(args[0]),) + args[1:]
            drawn = bxp(axes, *args, **kwargs)
            statistics = args[0] if args else kwargs.get("bxpstats", ())
            try:
                self.boxes.setdefault(axes, []).extend(zip(statistics, drawn["medians"]))
            except Exception:
                pass
            return drawn

        @functools.wraps(savefig)
        def noting_savefig(figure, *args, **kwargs):
            result = savefig(figure, *args, **kwargs)
            self.finished.add(figure)
            return result

        show._toolboxd = True
        self.pyplot.show, Axes.bxp, Figure.savefig = show, keeping_bxp, noting_savefig
        atexit.register(self.at_exit)

    def at_exit(self):
        if os.getpid() == self.process:  # a fork has its parent's figures
            self.report(figure for figure in open_figures() if figure not in self.finished)

    def report(self, figures):
        for figure in figures:
            try:
                if figure not in self.sent:
                    self.sent.add(figure)
                    self.sink.send(self.chart(figure))
            except Exception:
                pass

    def chart(self, figure):
        picture = self.picture(figure)  # first: drawing decides where the ticks are
        try:
            chart = self.describe(figure)
            if len(json.dumps(chart, allow_nan=False)) > DESCRIPTION:
                raise ValueError("the description is too large")
        except Exception:
            chart = titled({"type": "unknown"}, suptitle(figure))
        if picture:
            chart["png"] = picture
        return chart

    def picture(self, figure):
        for options in ({"bbox_inches": "tight"}, {}):
            buffer = io.BytesIO()
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    self.savefig(figure, buffer, format="png", dpi=100, **options)
                return base64.b64encode(buffer.getvalue()).decode()
            except Exception:
                continue
        return None

    def describe(self, figure):
        visible = [axes for axes in figure.axes if axes.get_visible() and axes.get_label() != "<colorbar>"]
        drawn = [axes for axes in visible if axes.has_data() or axes in self.boxes]
        charts = [self.describe_axes(axes) for axes in drawn]
        if not charts:
            return titled({"type": "unknown"}, suptitle(figure) or (title(visible[0]) if visible else None))
        if len(charts) == 1:
            return charts[0] if "title" in charts[0] else titled(charts[0], suptitle(figure))
        return titled({"type": "composite_chart", "elements": charts}, suptitle(figure))

    def describe_axes(self, axes):
        kinds = (self.pie, self.box, self.bar, self.points)
        try:
            if axes.name != "3d":
                for kind in kinds:
                    chart = kind(axes)
                    if chart:
                        return titled(chart, title(axes))
        except Exception:
            pass
        return titled({"type": "unknown"}, title(axes))

    def pie(self, axes):
        wedges = [patch for patch in axes.patches if isinstance(patch, Wedge)]
        labels = ["" if wedge.get_label().startswith("_") else wedge.get_label() for wedge in wedges]
        texts = [text.get_text() for text in axes.texts]
        shares = [None] * len(wedges)
        if len(texts) == 2 * len(wedges):
            # Newer versions write all labels first, older ones each beside its share.
            shares = texts[len(wedges) :] if texts[: len(wedges)] == labels else texts[1::2]
        elements = []
        for wedge, label, share in zip(wedges, labels, shares):
            element = {"label": label, "angle": number(abs(wedge.theta2 - wedge.theta1)), "radius": number(wedge.r)}
            if share:
                element["autopct"] = share
            elements.append(element)
        return elements and {"type": "pie", "elements": elements}

    def box(self, axes):
        lines = set(map(id, axes.lines))
        boxes = [(box, median) for box, median in self.boxes.get(axes, ()) if id(median) in lines]
        if not boxes:
            return None
        first = boxes[0][1]
        horizontal = len(set(first.get_xdata())) == 1 and len(set(first.get_ydata())) > 1
        category = Axis(axes, "y" if horizontal else "x")
        elements = []
        for box, median in boxes:
            place = finite(median.get_ydata() if horizontal else median.get_xdata())
            names = {"min": "whislo", "first_quartile": "q1", "median": "med", "third_quartile": "q3", "max": "whishi"}
            values = {name: number(box[key]) for name, key in names.items() if key in box and math.isfinite(box[key])}
            if not place or "median" not in values:
                continue
            label = category.label_at(sum(place) / len(place)) or str(box.get("label") or "")
            outliers = [number(value) for value in finite(box.get("fliers", ()))]
            elements.append({"label": label, **values, "outliers": outliers})
        return self.two_dimensional("box_and_whisker", axes, elements, horizontal)

    def bar(self, axes):
        containers = [bars for bars in axes.containers if isinstance(bars, BarContainer) and len(bars)]
        if not containers:
            return None
        horizontal = all(getattr(bars, "orientation", "vertical") == "horizontal" for bars in containers)
        category = Axis(axes, "y" if horizontal else "x")
        elements = []
        for bars in containers:
            for bar in bars:
                value = bar.get_width() if horizontal else bar.get_height()
                start, size = (bar.get_y(), bar.get_height()) if horizontal else (bar.get_x(), bar.get_width())
                if math.isfinite(value) and math.isfinite(start + size):
                    label = category.label_at(start + size / 2) or category.text_at(start + size / 2)
                    elements.append({"label": label, "group": bars.get_label(), "value": text_of(value)})
        return self.two_dimensional("bar", axes, elements, horizontal)

    def points(self, axes):
        x, y = Axis(axes, "x"), Axis(axes, "y")
        labels, caps = {}, set()
        for container in axes.containers:
            if isinstance(container, ErrorbarContainer):
                labels[id(container[0])] = container.get_label()
                caps.update(map(id, container[1]))
            elif isinstance(container, StemContainer):
                labels[id(container.markerline)] = container.get_label()
                caps.add(id(container.baseline))
        filled = any(isinstance(artist, PolyCollection) for artist in axes.collections)
        kind, elements = None, []
        for artist in axes.get_children():
            if isinstance(artist, Line2D) and id(artist) not in caps and artist.get_transform() == axes.transData:
                xs, ys = artist.get_xdata(orig=False), artist.get_ydata(orig=False)
                # Violins and the like are filled shapes with short straight lines in them.
                if filled and artist.get_label().startswith("_") and (len(set(xs)) < 2 or len(set(ys)) < 2):
                    continue
                is_line = artist.get_linestyle() not in ("None", "", " ") or artist.get_marker() in ("None", None, "")
            elif isinstance(artist, PathCollection) and artist.get_offset_transform() == axes.transData:
                xs, ys = zip(*artist.get_offsets().tolist()) if len(artist.get_offsets()) else ((), ())
                is_line = False
            else:
                continue
            pairs = [list(pair) for pair in zip(x.values(xs), y.values(ys)) if None not in pair]
            if pairs:
                kind = kind or ("line" if is_line else "scatter")
                elements.append({"label": labels.get(id(artist), artist.get_label()), "points": pairs})
        return self.two_dimensional(kind, axes, elements, False)

    def two_dimensional(self, kind, axes, elements, swapped):
        if not elements:
            return None
        x, y = Axis(axes, "x"), Axis(axes, "y")
        if swapped:
            x, y = y, x
        if kind in ("bar", "box_and_whisker"):
            x.is_categorical = x.is_categorical or x.has_words
        return {"type": kind, **x.facts("x"), **y.facts("y"), "elements": elements}


class Axis:
    """One axis: its label, ticks and scale, and what its numbers mean."""

    def __init__(self, axes, name):
        self.axis = getattr(axes, name + "axis")
        self.formatter = self.axis.get_major_formatter()
        get_converter = getattr(self.axis, "get_converter", None)
        converter = get_converter() if get_converter else getattr(self.axis, "converter", None)
        words = {kind.__name__ for kind in type(converter).__mro__}
        # An axis that is shared has no converter of its own.
        self.is_categorical = "StrCategoryConverter" in words or type(self.formatter).__name__ == "StrCategoryFormatter"
        locator = self.axis.get_major_locator()
        #: Of pandas: numbers are then ordinals of periods.
        self.frequency = getattr(axes, "freq", None) if "TimeSeries_DateLocator" in type(locator).__name__ else None
        self.is_date = (
            self.frequency is not None
            or any("Date" in word or word in ("PeriodConverter", "TimeConverter") for word in words)
            or isinstance(locator, dates.DateLocator)
            or isinstance(self.formatter, (dates.DateFormatter, dates.AutoDateFormatter))
        )
        self.ticks, self.labels = self.visible_ticks()

    def visible_ticks(self):
        places = list(self.axis.get_majorticklocs())
        labels = [plain(label) for label in self.formatter.format_ticks(places)]
        low, high = sorted(self.axis.get_view_interval())
        slack = (high - low) * 1e-6
        shown = [(place, label) for place, label in zip(places, labels) if low - slack <= place <= high + slack]
        return [place for place, _ in shown], [label for _, label in shown]

    @property
    def has_words(self):
        return any(label and not is_numeric(label) for label in self.labels) and not self.is_date

    def label_at(self, place):
        """The text of the tick that is nearest, when ticks are names and this one is no more than half the way to the
        next one away."""
        if not (self.is_categorical or isinstance(self.formatter, (FixedFormatter, FuncFormatter))):
            return None
        steps = [abs(after - before) for before, after in zip(self.ticks, self.ticks[1:])]
        limit = (min(steps) if steps else 1) / 2 * 1.000001
        near = [(abs(tick - place), label) for tick, label in zip(self.ticks, self.labels) if abs(tick - place) <= limit]
        return min(near)[1] if near else None

    def text_at(self, place):
        """The number of a place, or its date."""
        value = self.values([place])[0]
        if not self.is_date or value is None:
            return text_of(rounded(place))
        date = datetime.datetime.fromtimestamp(value, datetime.timezone.utc)
        return date.strftime("%Y-%m-%d" if value % 86400 == 0 else "%Y-%m-%d %H:%M:%S")

    def values(self, values):
        """As numbers for clients, None for what is none."""
        values = [float(value) if is_finite(value) else None for value in values]
        if self.frequency is not None:
            return [None if value is None else self.period_start(value) for value in values]
        first = next((value for value in values if value is not None), None)
        if not self.is_date or first is None:
            return [None if value is None else number(value) for value in values]
        start = dates.num2date(first).timestamp()
        return [None if value is None else number(round(start + (value - first) * 86400, 3)) for value in values]

    def period_start(self, ordinal):
        return number(sys.modules["pandas"].Period(ordinal=int(ordinal), freq=self.frequency).to_timestamp().timestamp())

    def facts(self, name):
        scale = "datetime" if self.is_date else "categorical" if self.is_categorical else str(self.axis.get_scale())
        pairs = [(value, label) for value, label in zip(self.values(map(rounded, self.ticks)), self.labels) if value is not None]
        return {
            name + "_label": plain(self.axis.get_label_text()),
            name + "_ticks": [value for value, _ in pairs],
            name + "_tick_labels": [label for _, label in pairs],
            name + "_scale": scale,
        }


def open_figures():
    return [manager.canvas.figure for manager in _pylab_helpers.Gcf.get_all_fig_managers()]


def suptitle(figure):
    text = getattr(figure, "_suptitle", None)
    return text.get_text() if text is not None else None


def title(axes):
    return next(filter(None, (axes.get_title(loc=place) for place in ("center", "left", "right"))), None)


def titled(chart, text):
    return {**chart, "title": text} if text else chart


def plain(text):
    """Without the marks of TeX that matplotlib puts around numbers, and with a minus that programs can read."""
    return re.sub(r"\\mathdefault\{(.*?)\}(?=\}?\$|$)", r"\1", str(text)).replace("$", "").replace("\N{MINUS SIGN}", "-")


def is_finite(value):
    try:
        return math.isfinite(value)
    except TypeError:  # masked
        return False


def finite(values):
    return [float(value) for value in values if is_finite(value)]


def is_numeric(text):
    try:
        return math.isfinite(float(text.replace(",", "")))
    except ValueError:
        return False


def number(value):
    value = float(value)
    return int(value) if value.is_integer() and abs(value) < 2**53 else value


def rounded(value):
    """Without what adding up steps has left in the last digits."""
    return float("%.12g" % value)


def text_of(value):
    return repr(number(value))
