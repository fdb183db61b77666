//! Pictures of known pixels.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::support::{Client, Daemon, Display, Recorder};

/// A picture that was sent, three bytes for each pixel.
#[derive(Debug, Clone, PartialEq)]
struct Picture {
    width: usize,
    height: usize,
    rgb: Vec<u8>,
}

impl Picture {
    fn decode(file: &[u8]) -> Self {
        if file.starts_with(b"\x89PNG") {
            let mut reader = png::Decoder::new(std::io::Cursor::new(file)).read_info().unwrap();
            let mut rgb = vec![0; reader.output_buffer_size().unwrap()];
            let info = reader.next_frame(&mut rgb).unwrap();
            assert_eq!((info.color_type, info.bit_depth), (png::ColorType::Rgb, png::BitDepth::Eight));
            return Self { width: info.width as usize, height: info.height as usize, rgb };
        }
        if file.starts_with(b"RIFF") {
            let mut decoder = image_webp::WebPDecoder::new(std::io::Cursor::new(file)).unwrap();
            let (width, height) = decoder.dimensions();
            let mut rgb = vec![0; decoder.output_buffer_size().unwrap()];
            decoder.read_image(&mut rgb).unwrap();
            return Self { width: width as usize, height: height as usize, rgb };
        }
        assert!(file.starts_with(&[0xff, 0xd8]), "neither PNG, WebP nor JPEG");
        let mut decoder = zune_jpeg::JpegDecoder::new(std::io::Cursor::new(file));
        let rgb = decoder.decode().unwrap();
        let (width, height) = decoder.dimensions().unwrap();
        Self { width, height, rgb }
    }

    fn of_reply(reply: &Value) -> Self {
        let file = STANDARD.decode(reply["screenshot"].as_str().unwrap()).unwrap();
        assert_eq!(reply["sizeBytes"], file.len());
        Self::decode(&file)
    }

    fn pixel(&self, x: usize, y: usize) -> [u8; 3] {
        self.rgb[(y * self.width + x) * 3..][..3].try_into().unwrap()
    }

    /// Peak signal-to-noise ratio, in decibels.
    fn likeness(&self, other: &Self) -> f64 {
        assert_eq!((self.width, self.height), (other.width, other.height));
        let squares = self.rgb.iter().zip(&other.rgb).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2));
        let mean = squares.sum::<f64>() / self.rgb.len() as f64;
        10.0 * (255.0 * 255.0 / mean).log10()
    }
}

/// A colour for each pixel: smooth, with hard edges, as a screen has.
fn colour(x: usize, y: usize) -> [u8; 3] {
    if (x / 40 + y / 30).is_multiple_of(5) {
        [250, 20, 60]
    } else {
        [(x / 3) as u8, (y / 3) as u8, ((x + y) / 6) as u8]
    }
}

const WIDTH: usize = 640;
const HEIGHT: usize = 480;

struct Stage {
    display: Display,
    _daemon: Daemon,
    client: Client,
    _window: Recorder,
}

/// A screen with a known picture on all of it.
async fn stage() -> Stage {
    let display = Display::start("640x480x24");
    let daemon = display.daemon().await;
    let window = Recorder::show(&display, 0, 0, 640, 480).await;
    let pixels = (0..HEIGHT).flat_map(|y| {
        (0..WIDTH).flat_map(move |x| {
            let [red, green, blue] = colour(x, y);
            [blue, green, red, 0]
        })
    });
    window.paint(640, 480, &pixels.collect::<Vec<u8>>());
    let client = daemon.client();
    Stage { display, _daemon: daemon, client, _window: window }
}

fn whole() -> Picture {
    part(0, 0, WIDTH, HEIGHT)
}

/// What a region shows; black outside of the screen.
fn part(x: i32, y: i32, width: usize, height: usize) -> Picture {
    let pixels = (0..height as i32).flat_map(|row| {
        (0..width as i32).flat_map(move |column| {
            let (x, y) = (x + column, y + row);
            let inside = (0..WIDTH as i32).contains(&x) && (0..HEIGHT as i32).contains(&y);
            if inside { colour(x as usize, y as usize) } else { [0; 3] }
        })
    });
    Picture { width, height, rgb: pixels.collect() }
}

impl Stage {
    async fn get(&self, path: &str) -> Value {
        self.client.get(&format!("/computeruse/screenshot{path}")).ok().await.json()
    }

    async fn picture(&self, path: &str) -> Picture {
        Picture::of_reply(&self.get(path).await)
    }

    async fn point_at(&self, x: i32, y: i32) {
        self.client.post("/computeruse/mouse/move").json(json!({"x": x, "y": y})).ok().await;
    }
}

#[tokio::test]
async fn lossless_formats_are_exact_and_jpeg_is_near() {
    let stage = stage().await;
    assert!(stage.picture("").await == whole());
    assert!(stage.picture("/compressed").await == whole());
    assert!(stage.picture("/compressed?format=PNG").await == whole());
    assert!(stage.picture("/compressed?format=webp&quality=50").await == whole());
    // Anything else is PNG.
    assert!(stage.picture("/compressed?format=tiff").await == whole());
    for name in ["jpeg", "jpg", "JPEG"] {
        let likeness =
            stage.picture(&format!("/compressed?format={name}&quality=95")).await.likeness(&whole());
        assert!(likeness > 30.0, "{likeness}");
    }
    let size = async |quality: u8| {
        stage.get(&format!("/compressed?format=jpeg&quality={quality}")).await["sizeBytes"].as_u64().unwrap()
    };
    assert!(size(20).await < size(85).await);
    assert_eq!(size(85).await, stage.get("/compressed?format=jpeg").await["sizeBytes"].as_u64().unwrap());
}

#[tokio::test]
async fn replies_have_the_members_of_the_contract_and_more_on_request() {
    let stage = stage().await;
    stage.point_at(101, 51).await;
    let members = |reply: &Value| reply.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    let mut expected = vec!["cursorPosition", "screenshot", "sizeBytes"];
    for (path, place) in [
        ("", json!({"x": 101, "y": 51})),
        ("?showCursor=true", json!({"x": 101, "y": 51})),
        ("/region?x=10&y=20&width=30&height=40", json!({"x": 101, "y": 51})),
        ("/compressed?scale=0.5", json!({"x": 50, "y": 25})),
        ("/region/compressed?x=100&y=50&width=30&height=40&scale=0.5", json!({"x": 100, "y": 50})),
        ("/region/compressed?x=91&y=41&width=30&height=40&scale=0.5", json!({"x": 96, "y": 46})),
    ] {
        let reply = stage.get(path).await;
        let mut found = members(&reply);
        found.sort();
        assert_eq!(found, expected, "{path}");
        assert_eq!(reply["cursorPosition"], place, "{path}");
    }
    let reply = stage.get("/compressed?scale=0.25&detail=true").await;
    expected.extend([
        "width",
        "height",
        "format",
        "scale",
        "display",
        "region",
        "cursor",
        "capturedAt",
        "version",
    ]);
    assert!(expected.iter().all(|name| reply.get(name).is_some()), "{:?}", members(&reply));
    assert_eq!(
        (&reply["width"], &reply["height"], &reply["format"]),
        (&json!(160), &json!(120), &json!("png"))
    );
    assert_eq!(
        reply["cursor"],
        json!({"screen": {"x": 101, "y": 51}, "image": {"x": 25, "y": 12}, "inside": true})
    );
}

#[tokio::test]
async fn regions_are_cut_from_the_screen_and_black_outside() {
    let stage = stage().await;
    for (x, y, width, height) in [
        (0, 0, 1, 1),
        (100, 50, 300, 200),
        (-20, -10, 50, 40),
        (600, 450, 100, 100),
        (-5, 470, 700, 30),
        (-100, -100, 900, 800),
        (5000, 5000, 20, 10),
        (-2_000_000_000, 0, 10, 10),
        (2_000_000_000, 2_000_000_000, 10, 10),
    ] {
        let query = format!("x={x}&y={y}&width={width}&height={height}");
        assert!(stage.picture(&format!("/region?{query}")).await == part(x, y, width, height), "{query}");
        assert!(
            stage.picture(&format!("/region/compressed?{query}&format=webp")).await
                == part(x, y, width, height)
        );
    }
}

#[tokio::test]
async fn smaller_pictures_have_the_size_asked_for() {
    let stage = stage().await;
    for (query, width, height) in [
        ("scale=0.5", 320, 240),
        ("scale=0.333", 213, 159),
        ("scale=1", 640, 480),
        ("maxWidth=100", 100, 75),
        ("maxHeight=100", 133, 100),
        ("maxWidth=5000", 640, 480),
        ("maxPixels=30000", 200, 150),
        ("maxWidth=500&scale=0.1", 64, 48),
    ] {
        for format in ["png", "jpeg", "webp", "other"] {
            let picture = stage.picture(&format!("/compressed?{query}&format={format}")).await;
            assert_eq!((picture.width, picture.height), (width, height), "{query} {format}");
        }
    }
    // In the middle of a block of one colour, small is as large.
    assert_eq!(stage.picture("/compressed?scale=0.5").await.pixel(10, 7), [250, 20, 60]);
    let tiny = stage.picture("/region/compressed?x=0&y=0&width=5&height=5&scale=0.1").await;
    assert_eq!((tiny.width, tiny.height), (1, 1));
}

#[tokio::test]
async fn the_pointer_is_drawn_where_it_is_and_only_then() {
    let stage = stage().await;
    stage.point_at(320, 240).await;
    assert!(stage.picture("").await == whole());
    assert!(stage.picture("?showCursor=true&show_cursor=false").await == whole());
    for query in ["?showCursor=1", "?show_cursor=TRUE", "?cursor=cross", "/compressed?showCursor=t"] {
        let (shown, expected) = (stage.picture(query).await, whole());
        let changed: Vec<_> = (0..WIDTH * HEIGHT)
            .map(|at| (at % WIDTH, at / WIDTH))
            .filter(|&(x, y)| shown.pixel(x, y) != expected.pixel(x, y))
            .collect();
        assert!(changed.len() > 20, "{query}: {}", changed.len());
        assert!(changed.iter().all(|&(x, y)| x.abs_diff(320) < 24 && y.abs_diff(240) < 24), "{query}");
    }
    let cross = stage.picture("?cursor=cross").await;
    assert_eq!(cross.pixel(320, 240), [255, 0, 0]);
    assert_eq!(cross.pixel(335, 240), [0; 3]);
    assert_eq!(cross.pixel(335, 241), [255; 3]);
    let region = stage.picture("/region?x=310&y=230&width=20&height=20&cursor=cross").await;
    assert_eq!(region.pixel(10, 10), [255, 0, 0]);
    let elsewhere = stage.picture("/region?x=0&y=0&width=20&height=20&showCursor=true").await;
    assert!(elsewhere == part(0, 0, 20, 20));
}

#[tokio::test]
async fn the_file_itself_is_sent_to_who_wants_it_once() {
    let stage = stage().await;
    for (accept, path, kind) in [
        ("image/png", "", "image/png"),
        ("image/webp", "", "image/webp"),
        ("image/jpeg, image/png;q=0.5", "/region?x=0&y=0&width=50&height=50", "image/jpeg"),
        ("image/*", "/compressed?format=jpeg", "image/jpeg"),
    ] {
        let path = format!("/computeruse/screenshot{path}");
        let reply = stage.client.get(&path).header("accept", accept).ok().await;
        assert_eq!(reply.header("content-type"), kind);
        Picture::decode(&reply.body);
        let tag = reply.header("etag").to_owned();
        let again =
            stage.client.get(&path).header("accept", accept).header("if-none-match", &tag).send().await;
        assert_eq!((again.status.as_u16(), again.body.len(), again.header("etag")), (304, 0, tag.as_str()));
    }
    let path = "/computeruse/screenshot?showCursor=true";
    let get = || stage.client.get(path).header("accept", "image/png");
    stage.point_at(10, 10).await;
    let tag = get().ok().await.header("etag").to_owned();
    stage.point_at(11, 10).await;
    let moved = get().header("if-none-match", &tag).ok().await;
    assert!(!moved.body.is_empty() && moved.header("etag") != tag);
    let json = stage.client.get(path).header("accept", "application/json, image/png").ok().await;
    assert_eq!(json.header("content-type"), "application/json");
}

#[tokio::test]
async fn bad_parameters_are_named() {
    let stage = stage().await;
    for (path, name) in [
        ("/region", "x is required"),
        ("/region?x=0&y=0&width=0&height=5", "width"),
        ("/region?x=0&y=0&width=5&height=-5", "height"),
        ("/region?X=0&Y=0&Width=5&Height=5", "x is required"),
        ("/region?x=0&y=0&width=16385&height=5", "width"),
        ("/region?x=0&y=0&width=16384&height=16384", "pixels"),
        ("?showCursor=yes", "showCursor"),
        ("?showCursor=", "showCursor"),
        ("/compressed?quality=0", "quality"),
        ("/compressed?quality=x", "quality"),
        ("/compressed?scale=1.5", "scale"),
        ("?display=7", "display 7"),
        ("?cursor=dot", "cursor"),
    ] {
        let call = stage.client.get(&format!("/computeruse/screenshot{path}"));
        let message = call.fails(400, "BAD_REQUEST").await;
        assert!(message.contains(name), "{path}: {message}");
    }
}

#[tokio::test]
async fn each_of_several_displays_has_its_picture() {
    let stage = stage().await;
    stage.display.split(640, 480);
    assert!(stage.picture("").await == part(0, 0, 320, 480));
    assert!(stage.picture("?display=0").await == part(0, 0, 320, 480));
    assert!(stage.picture("?display=1").await == part(320, 0, 320, 480));
    assert!(stage.picture("/compressed?display=all&format=webp").await == whole());
    assert!(stage.picture("/region?x=300&y=0&width=40&height=10").await == part(300, 0, 40, 10));
}

#[tokio::test]
async fn every_depth_of_screen_is_understood() {
    // Red, green, blue, white as the pixels of each depth; a table is asked for.
    for (screen, pixels, tolerance) in [
        ("64x48x16", vec![vec![0x00, 0xf8], vec![0xe0, 0x07], vec![0x1f, 0x00], vec![0xff, 0xff]], 0),
        ("64x48x15", vec![vec![0x00, 0x7c], vec![0xe0, 0x03], vec![0x1f, 0x00], vec![0xff, 0x7f]], 0),
        (
            "64x48x30",
            vec![
                vec![0x00, 0x00, 0xf0, 0x3f],
                vec![0x00, 0xfc, 0x0f, 0x00],
                vec![0xff, 0x03, 0x00, 0x00],
                vec![0xff, 0xff, 0xff, 0x3f],
            ],
            0,
        ),
    ] {
        let display = Display::start(screen);
        let daemon = display.daemon().await;
        let window = Recorder::show(&display, 0, 0, 64, 48).await;
        let row: Vec<u8> = (0..64).flat_map(|x| pixels[x / 16].clone()).collect();
        window.paint(64, 48, &row.repeat(48));
        let reply = daemon.client().get("/computeruse/screenshot").ok().await.json();
        let picture = Picture::of_reply(&reply);
        let colours = [[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]];
        for (block, colour) in colours.iter().enumerate() {
            let found = picture.pixel(block * 16 + 8, 20);
            let near = found.iter().zip(colour).all(|(a, b): (&u8, &u8)| a.abs_diff(*b) <= tolerance);
            assert!(near, "{screen}: {found:?} for {colour:?}");
        }
    }
    let display = Display::start("64x48x8");
    let daemon = display.daemon().await;
    let _window = Recorder::show(&display, 0, 0, 32, 48).await; // white, beside the black root
    let reply = daemon.client().get("/computeruse/screenshot").ok().await.json();
    let picture = Picture::of_reply(&reply);
    assert_eq!((picture.pixel(5, 5), picture.pixel(50, 5)), ([255; 3], [0; 3]));
}

#[tokio::test]
async fn regions_that_an_sdk_swaps_are_put_right_when_asked() {
    let display = Display::start("640x480x24");
    let daemon = display
        .daemon_with(|command| {
            command.env("TOOLBOXD_FIX_SWAPPED_REGIONS", "true");
        })
        .await;
    let size = async |source: &str| {
        let call = daemon.client().get("/computeruse/screenshot/region?x=200&y=300&width=50&height=100");
        let call = call.header("x-daytona-source", source).header("x-daytona-sdk-version", "0.205.0");
        let picture = Picture::of_reply(&call.ok().await.json());
        (picture.width, picture.height)
    };
    assert_eq!(size("sdk-typescript").await, (300, 200));
    assert_eq!(size("sdk-python").await, (50, 100));
}
