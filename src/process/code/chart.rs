//! What clients accept as a chart (contract `process.md` 3.3). The strictest of them refuses a whole answer for one
//! number that should be text, so nothing else leaves the daemon, whoever made it.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

/// A chart that a program has drawn. Members that a type of chart does not have are absent.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(super) struct Chart {
    /// `line`, `scatter`, `bar`, `pie`, `box_and_whisker`, `composite_chart` or `unknown`.
    r#type: String,
    /// Title of the axes, of a composite chart that of the figure.
    title: Option<String>,
    /// Picture of the whole figure, 100 dots per inch: a PNG in Base64.
    png: Option<String>,
    /// Label of the axis across; of bars and boxes that of the categories.
    x_label: Option<String>,
    /// Label of the axis upwards; of bars and boxes that of the values.
    y_label: Option<String>,
    /// Where the ticks are; dates in seconds since 1970.
    x_ticks: Option<Vec<f64>>,
    /// As `x_ticks`.
    y_ticks: Option<Vec<f64>>,
    /// What stands at the ticks.
    x_tick_labels: Option<Vec<String>>,
    /// As `x_tick_labels`.
    y_tick_labels: Option<Vec<String>>,
    /// `linear`, `log` and other names of matplotlib's, `datetime` or `categorical`.
    x_scale: Option<String>,
    /// As `x_scale`.
    y_scale: Option<String>,
    /// Lines, bars, slices, boxes; of a composite chart, charts without their pictures.
    elements: Option<Vec<Element>>,
}

/// A part of a chart. Each type of chart has some of the members.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(super) struct Element {
    /// Line, scatter, bar, pie and box: what it is called.
    label: Option<String>,
    /// Line and scatter: pairs of numbers; dates in seconds since 1970.
    points: Option<Vec<Vec<f64>>>,
    /// Bar: which of several bars at one place.
    group: Option<String>,
    /// Bar: a number, as text.
    value: Option<String>,
    /// Pie: degrees.
    angle: Option<f64>,
    /// Pie.
    radius: Option<f64>,
    /// Box: the lower whisker's end.
    min: Option<f64>,
    /// Box.
    first_quartile: Option<f64>,
    /// Box.
    median: Option<f64>,
    /// Box.
    third_quartile: Option<f64>,
    /// Box: the upper whisker's end.
    max: Option<f64>,
    /// Box: values beyond the whiskers.
    outliers: Option<Vec<f64>>,
    /// Composite: type of the part, which has its own `elements` and other members of a chart.
    r#type: Option<String>,
    /// Composite.
    title: Option<String>,
    /// Never set.
    png: Option<String>,
    /// Composite.
    x_label: Option<String>,
    /// Composite.
    y_label: Option<String>,
}

/// A chart as clients accept it: `json` itself when it is that already, what can be made of it otherwise. None when it
/// is no chart at all.
pub(super) fn acceptable(json: &str) -> Option<String> {
    if is_chart(json) {
        return Some(json.trim().to_owned());
    }
    let mut chart: Map<String, Value> = serde_json::from_str(json).ok()?;
    // Wrappers of older SDKs send the values of bars as numbers.
    let elements = chart.get_mut("elements").and_then(Value::as_array_mut);
    for value in elements.into_iter().flatten().filter_map(|element| element.get_mut("value")) {
        if value.is_number() {
            *value = Value::String(value.to_string());
        }
    }
    let mended = Value::Object(chart.clone()).to_string();
    if is_chart(&mended) {
        return Some(mended);
    }
    let mut unknown = Map::from_iter([("type".to_owned(), Value::from("unknown"))]);
    unknown.extend(
        ["title", "png"]
            .into_iter()
            .filter_map(|name| chart.remove_entry(name).filter(|(_, text)| text.is_string())),
    );
    Some(Value::Object(unknown).to_string())
}

fn is_chart(json: &str) -> bool {
    serde_json::from_str::<Chart>(json).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_right_stays_as_it_is() {
        let chart =
            r#"{"type":"bar","x_ticks":[0,1.5],"more":1,"elements":[{"label":"a","value":"4"}],"png":"x"}"#;
        assert_eq!(acceptable(chart).unwrap(), chart);
        let parts = r#"{"type":"composite_chart","elements":[{"type":"line","x_ticks":[1],"elements":[{"points":[[1,2]]}]}]}"#;
        assert_eq!(acceptable(parts).unwrap(), parts);
    }

    #[test]
    fn what_is_wrong_is_mended_or_unknown() {
        let mended = acceptable(r#"{"type":"bar","elements":[{"label":"a","value":4.5}]}"#).unwrap();
        assert_eq!(mended, r#"{"elements":[{"label":"a","value":"4.5"}],"type":"bar"}"#);
        let unknown = acceptable(r#"{"type":"line","title":"t","png":"p","x_ticks":["Jan"]}"#).unwrap();
        assert_eq!(unknown, r#"{"png":"p","title":"t","type":"unknown"}"#);
        assert_eq!(acceptable(r#"{"type":5,"title":1}"#).unwrap(), r#"{"type":"unknown"}"#);
        for no_chart in ["", "[]", "{\"type\":", "{\"x\":NaN}"] {
            assert_eq!(acceptable(no_chart), None, "{no_chart}");
        }
    }
}
