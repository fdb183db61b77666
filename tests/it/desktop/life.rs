//! The desktop's processes: a daemon that has a display's number of its own.

use std::collections::BTreeSet;
use std::os::unix::fs::symlink;
use std::path::Path;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde_json::{Value, json};

use crate::support::{Client, Daemon, Display, Socket, free_display, free_port, gone, within};

/// What a desktop needs of the machine, beside the daemon's own needs.
const PROGRAMS: [&str; 4] = ["Xvfb", "openbox", "x11vnc", "websockify"];
/// What those need.
const THEIRS: [&str; 6] = ["dbus-daemon", "python3", "sh", "env", "xkbcomp", "kill"];

struct Desktop {
    daemon: Daemon,
    client: Client,
    display: String,
    vnc_port: u16,
    live_view_port: u16,
}

/// A daemon in an image that has these programs, not started.
async fn desktop_with(programs: &[&str]) -> Desktop {
    let (display, vnc_port, live_view_port) = (free_display(), free_port(), free_port());
    let path = std::env::var("PATH").unwrap();
    let daemon = Daemon::start_with(|command| {
        let bin = std::env::temp_dir().join(format!("toolboxd-test-bin{}", &display[1..]));
        let _ = std::fs::remove_dir_all(&bin);
        std::fs::create_dir(&bin).unwrap();
        for program in programs.iter().chain(&THEIRS) {
            let found = std::env::split_paths(&path).map(|directory| directory.join(program));
            let found = found.into_iter().find(|file| file.exists());
            symlink(found.unwrap_or_else(|| panic!("{program} is needed for this test")), bin.join(program))
                .unwrap();
        }
        command
            .env("PATH", &bin)
            .env("DISPLAY", &display)
            .env("VNC_RESOLUTION", "1280x800")
            .env("VNC_PORT", vnc_port.to_string())
            .env("NO_VNC_PORT", live_view_port.to_string());
    })
    .await;
    let client = daemon.client();
    Desktop { daemon, client, display, vnc_port, live_view_port }
}

impl Drop for Desktop {
    fn drop(&mut self) {
        // Killed, it would leave its processes to the machine.
        let daemon = Pid::from_raw(self.daemon.pid().cast_signed()).unwrap();
        if let Ok(daemon) = pidfd_open(daemon, PidfdFlags::empty()) {
            let _ = pidfd_send_signal(&daemon, Signal::TERM); // has been killed when it fails
            let limit = Timespec { tv_sec: 60, tv_nsec: 0 };
            let _ = poll(&mut [PollFd::new(&daemon, PollFlags::IN)], Some(&limit));
        }
        let _ = std::fs::remove_dir_all(
            std::env::temp_dir().join(format!("toolboxd-test-bin{}", &self.display[1..])),
        );
    }
}

impl Desktop {
    async fn post(&self, path: &str) -> Value {
        self.client.post(&format!("/computeruse/{path}")).ok().await.json()
    }

    async fn status(&self) -> String {
        let status = self.client.get("/computeruse/process-status").ok().await.json();
        assert_eq!(status, self.client.get("/computeruse/status").ok().await.json());
        status["status"].as_str().unwrap().to_owned()
    }

    async fn is_running(&self, name: &str) -> bool {
        let reply = self.client.get(&format!("/computeruse/process/{name}/status")).ok().await.json();
        assert_eq!(reply["processName"], name);
        reply["running"].as_bool().unwrap()
    }

    /// Output of a command that a client runs.
    async fn output(&self, command: &str) -> String {
        let reply = self.client.post("/process/execute").json(json!({"command": command})).ok().await.json();
        reply["result"].as_str().unwrap().trim().to_owned()
    }

    /// Events of the processes from now on.
    async fn processes(&self) -> Socket {
        let mut socket = self.client.socket("/computeruse/events?types=processes").await;
        assert_eq!(socket.json().await["type"], "ready");
        socket
    }
}

fn pid(started: &Value, name: &str) -> u32 {
    u32::try_from(started["status"][name]["pid"].as_u64().unwrap()).unwrap()
}

/// Waits until one process is, or is not, ready.
async fn until(events: &mut Socket, name: &str, running: bool) {
    let told = async {
        loop {
            let event = events.json().await;
            if event["processName"] == name && event["running"] == running {
                return;
            }
        }
    };
    within(told).await;
}

async fn kill(pid: u32) {
    let status = tokio::process::Command::new("kill").args(["-9", &pid.to_string()]).status().await.unwrap();
    assert!(status.success());
}

#[tokio::test]
async fn start_makes_everything_ready_and_stop_ends_all_of_it() {
    let desktop = desktop_with(&PROGRAMS).await;
    assert_eq!(desktop.status().await, "inactive");
    assert_eq!(desktop.output("echo $DISPLAY").await, desktop.display);
    let started = desktop.post("start").await;
    assert_eq!(started["message"], "Computer use processes started successfully");
    let mut pids = BTreeSet::new();
    for (name, priority) in [("xvfb", 100), ("xfce4", 200), ("x11vnc", 300), ("novnc", 400)] {
        let process = &started["status"][name];
        assert_eq!(
            (&process["running"], &process["priority"]),
            (&json!(true), &json!(priority)),
            "{started}"
        );
        assert_eq!(process["autoRestart"], true);
        assert!(!gone(pid(&started, name)));
        assert!(desktop.is_running(name).await);
        pids.insert(pid(&started, name));
    }
    assert_eq!(pids.len(), 4);
    assert_eq!(desktop.status().await, "active");
    assert_eq!(desktop.post("start").await["status"], started["status"]);

    let info = desktop.client.get("/computeruse/display/info").ok().await.json();
    let display = json!({"id": 0, "x": 0, "y": 0, "width": 1280, "height": 800, "isActive": true});
    assert_eq!(info, json!({"displays": [display]}));
    let detail = desktop.client.get("/computeruse/status?detail=true").ok().await.json()["detail"].clone();
    assert_eq!((&detail["windowManager"], &detail["ownsDisplay"]), (&json!("Openbox"), &json!(true)));
    assert!(!desktop.output("echo $DBUS_SESSION_BUS_ADDRESS").await.is_empty());
    let pages = reqwest::Client::builder().no_proxy().build().unwrap();
    let page =
        pages.get(format!("http://127.0.0.1:{}/vnc.html", desktop.live_view_port)).send().await.unwrap();
    assert!(page.status().is_success());

    let stopped = desktop.post("stop").await;
    assert_eq!(stopped["message"], "Computer use processes stopped successfully");
    for name in ["xvfb", "xfce4", "x11vnc", "novnc"] {
        assert_eq!(stopped["status"][name]["running"], false);
        assert!(stopped["status"][name].get("pid").is_none());
        assert!(!desktop.is_running(name).await);
    }
    assert!(pids.into_iter().all(gone));
    assert_eq!(desktop.status().await, "inactive");
    assert_eq!(desktop.output("echo $DBUS_SESSION_BUS_ADDRESS").await, "");
    assert_eq!(desktop.post("stop").await["status"], stopped["status"]);
    assert!(!Path::new(&format!("/tmp/.X11-unix/X{}", &desktop.display[1..])).exists());
}

#[tokio::test]
async fn vnc_is_for_this_machine_only() {
    let desktop = desktop_with(&PROGRAMS).await;
    desktop.post("start").await;
    let mut greeting = [0; 4];
    let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", desktop.vnc_port)).await.unwrap();
    within(tokio::io::AsyncReadExt::read_exact(&mut stream, &mut greeting)).await.unwrap();
    assert_eq!(&greeting, b"RFB ");
    let port = format!(":{:04X}", desktop.vnc_port);
    for (table, loopback) in [("tcp", "0100007F"), ("tcp6", "00000000000000000000000001000000")] {
        let rows = std::fs::read_to_string(format!("/proc/net/{table}")).unwrap_or_default();
        let listening = rows.lines().filter_map(|row| {
            let mut fields = row.split_whitespace().skip(1);
            let (local, _, state) = (fields.next()?, fields.next()?, fields.next()?);
            (state == "0A").then_some(local.strip_suffix(&port)?)
        });
        listening.for_each(|address| assert_eq!(address, loopback));
    }
}

#[tokio::test]
async fn what_ends_is_started_again() {
    let desktop = desktop_with(&PROGRAMS).await;
    let started = desktop.post("start").await;
    let mut events = desktop.processes().await;
    kill(pid(&started, "xfce4")).await;
    until(&mut events, "xfce4", false).await;
    until(&mut events, "xfce4", true).await;
    assert_eq!(desktop.status().await, "active");
    let again = desktop.post("start").await;
    assert_ne!(pid(&again, "xfce4"), pid(&started, "xfce4"));
    assert_eq!(pid(&again, "xvfb"), pid(&started, "xvfb"));
}

#[tokio::test]
async fn shared_memory_goes_with_who_made_it() {
    let desktop = desktop_with(&PROGRAMS).await;
    let first = pid(&desktop.post("start").await, "x11vnc");
    assert!(!shared_memory_of(first).is_empty());
    let mut events = desktop.processes().await;
    kill(first).await;
    until(&mut events, "x11vnc", false).await;
    until(&mut events, "x11vnc", true).await;
    assert!(shared_memory_of(first).is_empty());
}

#[tokio::test]
async fn shared_memory_goes_even_when_nobody_is_left_to_look_after_it() {
    let desktop = desktop_with(&PROGRAMS).await;
    let vnc = pid(&desktop.post("start").await, "x11vnc");
    assert!(!shared_memory_of(vnc).is_empty());
    let daemon = desktop.daemon.pid();
    let processes = children(daemon);
    assert!(processes.contains(&vnc));
    kill(daemon).await;
    for process in processes {
        kill(process).await;
    }
    within(async {
        while !shared_memory_of(vnc).is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// Processes that it started itself.
fn children(pid: u32) -> Vec<u32> {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let lists =
        threads.map(|thread| std::fs::read_to_string(thread.unwrap().path().join("children")).unwrap());
    lists
        .flat_map(|list| list.split_whitespace().map(|pid| pid.parse().unwrap()).collect::<Vec<_>>())
        .collect()
}

/// Lines of the kernel's table for what a process made.
fn shared_memory_of(pid: u32) -> Vec<String> {
    let table = std::fs::read_to_string("/proc/sysvipc/shm").unwrap();
    let is_its = |line: &&str| line.split_whitespace().nth(4) == Some(&pid.to_string());
    table.lines().filter(is_its).map(str::to_owned).collect()
}

#[tokio::test]
async fn restarting_the_x_server_restarts_what_depends_on_it() {
    let desktop = desktop_with(&PROGRAMS).await;
    let started = desktop.post("start").await;
    let reply = desktop.post("process/xvfb/restart").await;
    assert_eq!(reply, json!({"message": "Process xvfb restarted successfully", "processName": "xvfb"}));
    let again = desktop.post("start").await;
    for name in ["xvfb", "xfce4", "x11vnc"] {
        assert_ne!(pid(&again, name), pid(&started, name), "{name}");
        assert!(gone(pid(&started, name)));
    }
    assert_eq!(pid(&again, "novnc"), pid(&started, "novnc"));
    desktop.post("process/novnc/restart").await;
    assert_ne!(pid(&desktop.post("start").await, "novnc"), pid(&started, "novnc"));
    assert_eq!(desktop.status().await, "active");
}

#[tokio::test]
async fn killing_the_x_server_under_load_gives_clear_errors_and_start_brings_everything_back() {
    let desktop = desktop_with(&PROGRAMS).await;
    let started = desktop.post("start").await;
    let (stop, _) = tokio::sync::watch::channel(false);
    let load = |path: &'static str, body: Option<Value>| {
        let (client, stop) = (desktop.client.clone(), stop.subscribe());
        tokio::spawn(async move {
            let (mut good, mut refused) = (0, 0);
            while !*stop.borrow() || good == 0 {
                let call = match &body {
                    Some(body) => client.post(path).json(body.clone()),
                    None => client.get(path),
                };
                let reply = call.send().await;
                match reply.status.as_u16() {
                    200 => good += 1,
                    503 => {
                        assert_eq!(reply.json()["code"], "SERVICE_UNAVAILABLE");
                        assert!(
                            reply.json()["message"].as_str().unwrap().contains("call start"),
                            "{}",
                            reply.text()
                        );
                        refused += 1;
                    }
                    _ => panic!("{path}: {} {}", reply.status, reply.text()),
                }
            }
            (good, refused)
        })
    };
    let loads = [
        load("/computeruse/screenshot", None),
        load("/computeruse/mouse/move", Some(json!({"x": 5, "y": 5}))),
        load("/computeruse/keyboard/type", Some(json!({"text": "héllo 世界"}))),
        load("/computeruse/display/windows", None),
        load(
            "/computeruse/mouse/drag",
            Some(json!({"startX": 1, "startY": 1, "endX": 90, "endY": 90, "durationMs": 20})),
        ),
        load("/computeruse/clipboard", None),
    ];
    let mut events = desktop.processes().await;
    for _ in 0..3 {
        let started = desktop.post("start").await;
        kill(pid(&started, "xvfb")).await;
        until(&mut events, "xvfb", false).await;
        let again = desktop.post("start").await;
        assert!(
            ["xvfb", "xfce4", "x11vnc", "novnc"].iter().all(|name| again["status"][name]["running"] == true)
        );
    }
    assert_eq!(desktop.status().await, "active");
    stop.send_replace(true);
    for load in loads {
        let (good, _) = within(load).await.unwrap();
        assert!(good > 0);
    }
    assert!(gone(pid(&started, "xvfb")));
    assert!(!desktop.daemon.log().contains("panicked"));
}

#[tokio::test]
async fn logs_are_kept_and_their_ends_are_told() {
    let desktop = desktop_with(&PROGRAMS).await;
    let logs = desktop.client.get("/computeruse/process/x11vnc/logs").ok().await.json();
    assert_eq!(logs, json!({"processName": "x11vnc", "logs": ""}));
    desktop.post("start").await;
    let path = desktop.daemon.home().join(".daytona/computeruse/x11vnc.err");
    assert!(path.exists());
    let errors = desktop.client.get("/computeruse/process/x11vnc/errors").ok().await.json();
    assert!(errors["errors"].as_str().unwrap().contains("x11vnc version"), "{errors}");
    let tail = desktop.client.get("/computeruse/process/x11vnc/errors?tail=200").ok().await.json();
    let tail = tail["errors"].as_str().unwrap().to_owned();
    assert!(tail.len() <= 200 && !tail.is_empty(), "{tail}");
    for (method, path) in [("GET", "status"), ("POST", "restart"), ("GET", "logs"), ("GET", "errors")] {
        let path = format!("/computeruse/process/Xvfb/{path}");
        let call = desktop.client.request(method.parse().unwrap(), &path);
        assert!(call.fails(404, "PROCESS_NOT_FOUND").await.contains("process Xvfb not found"));
    }
}

#[tokio::test]
async fn what_the_image_lacks_is_named_and_the_rest_runs() {
    let desktop = desktop_with(&["Xvfb", "websockify"]).await;
    let message = desktop.client.post("/computeruse/start").fails(503, "SERVICE_UNAVAILABLE").await;
    let expected = "failed to start computer use: x11vnc: x11vnc is not installed (Debian package x11vnc)";
    assert_eq!(message, expected);
    assert_eq!(desktop.status().await, "partial");
    desktop.client.get("/computeruse/screenshot").ok().await;
    let message =
        desktop.client.post("/computeruse/process/xfce4/restart").fails(500, "INTERNAL_SERVER_ERROR").await;
    assert!(message.contains("no window manager is installed"), "{message}");
    let reasons =
        desktop.client.get("/computeruse/status?detail=true").ok().await.json()["detail"]["reasons"].clone();
    assert!(reasons["x11vnc"].as_str().unwrap().contains("not installed"), "{reasons}");
}

#[tokio::test]
async fn a_display_that_is_there_is_used_as_it_is() {
    let mut display = Display::start("640x480x24");
    let home = tempfile::tempdir().unwrap();
    display.manage(home.path()).await;
    let (vnc, live_view) = (free_port().to_string(), free_port().to_string());
    let daemon = display
        .daemon_with(|command| {
            command.env("VNC_PORT", vnc).env("NO_VNC_PORT", live_view);
        })
        .await;
    let client = daemon.client();
    assert_eq!(client.get("/computeruse/status").ok().await.json()["status"], "inactive");
    client.post("/computeruse/mouse/move").json(json!({"x": 1, "y": 2})).ok().await;
    let started = client.post("/computeruse/start").ok().await.json();
    for name in ["xvfb", "xfce4"] {
        assert_eq!(started["status"][name]["running"], true);
        assert!(started["status"][name].get("pid").is_none(), "{started}");
    }
    assert_eq!(client.get("/computeruse/status").ok().await.json()["status"], "active");
    client.post("/computeruse/process/xvfb/restart").fails(409, "CONFLICT").await;
    client.post("/computeruse/stop").ok().await;
    assert!(!gone(display.pid()));
    assert_eq!(client.get("/computeruse/mouse/position").ok().await.json(), json!({"x": 1, "y": 2}));
}

#[tokio::test]
async fn the_screen_can_be_resized_and_keeps_its_size_when_it_is_restarted() {
    let desktop = desktop_with(&PROGRAMS).await;
    let started = desktop.post("start").await;
    let resize = |body: Value| desktop.client.patch("/computeruse/display").json(body);
    let reply = resize(json!({"width": 1920, "height": 1080})).ok().await.json();
    assert_eq!(reply, json!({"width": 1920, "height": 1080, "restarted": false}));
    let size = async || {
        let info = desktop.client.get("/computeruse/display/info").ok().await.json();
        (info["displays"][0]["width"].as_u64().unwrap(), info["displays"][0]["height"].as_u64().unwrap())
    };
    assert_eq!(size().await, (1920, 1080));
    resize(json!({"width": 1000, "height": 333})).ok().await;
    assert_eq!(size().await, (1000, 333));
    resize(json!({"width": 3840, "height": 2160})).ok().await;
    resize(json!({"width": 1111, "height": 777})).ok().await;
    assert_eq!(pid(&desktop.post("start").await, "xvfb"), pid(&started, "xvfb"));
    desktop.post("process/xvfb/restart").await;
    assert_eq!(size().await, (1111, 777));
    let message = resize(json!({"width": 4000, "height": 2160})).fails(409, "CONFLICT").await;
    assert!(message.contains("3840x2160") && message.contains("restart"), "{message}");
    let reply = resize(json!({"width": 4000, "height": 2160, "restart": true})).ok().await.json();
    assert_eq!(reply["restarted"], true);
    assert_eq!(size().await, (4000, 2160));
    assert!(resize(json!({"width": 10, "height": 2160})).fails(400, "BAD_REQUEST").await.contains("width"));
    assert!(resize(json!({"width": 100})).fails(400, "BAD_REQUEST").await.contains("height is required"));
}
