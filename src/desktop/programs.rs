//! Which of the desktop's programs the image has, and how each is called (contract `computer-use.md` 2.1).

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use super::Settings;
use crate::supervisor::{Environment, find_program};

/// Largest screen that can be changed to without a restart of the X server, in pixels: 30 MB of memory.
pub(super) const LARGEST: (u16, u16) = (3840, 2160);
/// Where Debian and most others put noVNC's pages.
const NOVNC: &str = "/usr/share/novnc";
/// What manages windows, best first: desktops, then bare window managers. All own `_NET_SUPPORTING_WM_CHECK`.
const WINDOW_MANAGERS: &[&[&str]] = &[
    &["startxfce4"],
    &["openbox"],
    &["xfwm4", "--compositor=off"],
    &["fluxbox"],
    &["icewm"],
    &["jwm"],
    &["marco", "--no-composite"],
    &["metacity", "--no-composite"],
    &["i3"],
];

/// A screen's server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ScreenServer {
    /// Draws into memory.
    Xvfb(PathBuf),
    /// The same, and is the VNC server too.
    Xvnc(PathBuf),
}

/// A program that the image lacks, and the package that has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Missing {
    pub(super) program: &'static str,
    pub(super) package: &'static str,
}

impl std::fmt::Display for Missing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} is not installed (Debian package {})", self.program, self.package)
    }
}

/// Looks programs up at the moment they are asked for: an image may get them later.
#[derive(Debug, Clone)]
pub(super) struct Programs {
    environment: Environment,
}

impl Programs {
    pub(super) fn new(environment: Environment) -> Self {
        Self { environment }
    }

    /// The executable file that a name means.
    pub(super) fn find(&self, name: &str) -> Option<PathBuf> {
        find_program(name, self.environment.get("PATH").as_deref())
    }

    /// What a whole desktop needs and the image lacks.
    pub(super) fn missing(&self) -> Vec<Missing> {
        let has_screen = self.screen_server().is_some();
        let mut missing = Vec::new();
        let mut need = |is_there: bool, program, package| {
            if !is_there {
                missing.push(Missing { program, package });
            }
        };
        need(has_screen, "Xvfb", "xvfb");
        need(self.window_manager().is_some(), "a window manager", "xfce4");
        need(self.find("x11vnc").is_some(), "x11vnc", "x11vnc");
        need(self.find("websockify").is_some() || Path::new(NOVNC).is_dir(), "noVNC", "novnc");
        missing
    }

    /// Xvfb with x11vnc beside it where there are both; a server that is both where one of them is missing.
    pub(super) fn screen_server(&self) -> Option<ScreenServer> {
        let xvnc = || self.find("Xtigervnc").or_else(|| self.find("Xvnc")).map(ScreenServer::Xvnc);
        let xvfb = self.find("Xvfb").map(ScreenServer::Xvfb);
        if xvfb.is_some() && self.find("x11vnc").is_some() { xvfb } else { xvnc().or(xvfb) }
    }

    /// The best window manager that is there, with its arguments.
    pub(super) fn window_manager(&self) -> Option<Vec<OsString>> {
        WINDOW_MANAGERS.iter().find_map(|argv| {
            let program = self.find(argv[0])?;
            let arguments = argv[1..].iter().map(OsString::from);
            Some(std::iter::once(program.into_os_string()).chain(arguments).collect())
        })
    }

    /// The VNC server for a screen that has none of its own; on loopback, for it asks for no password.
    pub(super) fn vnc_server(&self, settings: &Settings) -> Result<Vec<OsString>, Missing> {
        let missing = Missing { program: "x11vnc", package: "x11vnc" };
        let program = self.find("x11vnc").ok_or(missing)?;
        let port = settings.vnc_port.to_string();
        let arguments =
            ["-display", &settings.display, "-forever", "-shared", "-localhost", "-nopw", "-rfbport", &port];
        Ok(argv(&program, &arguments))
    }

    /// What shows the VNC server in a browser.
    pub(super) fn live_view(&self, settings: &Settings) -> Result<Vec<OsString>, Missing> {
        let (port, vnc) = (settings.no_vnc_port.to_string(), format!("localhost:{}", settings.vnc_port));
        let pages = Path::new(NOVNC);
        match self.find("websockify") {
            Some(program) if pages.is_dir() => {
                return Ok(argv(&program, &[&format!("--web={NOVNC}/"), &port, &vnc]));
            }
            _ => {}
        }
        let scripts = ["utils/launch.sh", "utils/novnc_proxy"].map(|script| pages.join(script));
        let script = scripts.into_iter().find(|script| script.is_file());
        let script = script.ok_or(Missing { program: "noVNC", package: "novnc" })?;
        Ok(argv(&script, &["--vnc", &vnc, "--listen", &port]))
    }
}

impl ScreenServer {
    /// Tells the number of the display on descriptor 3 when it answers.
    pub(super) fn argv(&self, settings: &Settings, size: (u16, u16)) -> Vec<OsString> {
        let display = settings.display.as_str();
        let geometry = format!("{}x{}", size.0, size.1);
        match self {
            // Without -noreset, modes and key map are lost when the last client leaves.
            Self::Xvfb(program) => {
                let screen = format!("{geometry}x24");
                let arguments =
                    [display, "-screen", "0", &screen, "-noreset", "-nolisten", "tcp", "-displayfd", "3"];
                argv(program, &arguments)
            }
            Self::Xvnc(program) => {
                let port = settings.vnc_port.to_string();
                let arguments = [
                    display,
                    "-geometry",
                    &geometry,
                    "-depth",
                    "24",
                    "-rfbport",
                    &port,
                    "-localhost=1",
                    "-SecurityTypes=None",
                    "-AlwaysShared=1",
                    "-noreset",
                    "-nolisten",
                    "tcp",
                    "-displayfd",
                    "3",
                ];
                argv(program, &arguments)
            }
        }
    }

    /// The size to start it with so that the wanted one, and others later, can be set.
    pub(super) fn start_size(&self, wanted: (u16, u16)) -> (u16, u16) {
        match self {
            Self::Xvfb(_) => (wanted.0.max(LARGEST.0), wanted.1.max(LARGEST.1)),
            Self::Xvnc(_) => wanted,
        }
    }
}

fn argv(program: &Path, arguments: &[&str]) -> Vec<OsString> {
    std::iter::once(program.as_os_str())
        .chain(arguments.iter().map(OsStr::new))
        .map(OsStr::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// Programs of an image that has just these.
    fn image(names: &[&str]) -> (tempfile::TempDir, Programs) {
        let directory = tempfile::tempdir().unwrap();
        for name in names {
            let path = directory.path().join(name);
            fs::write(&path, "").unwrap();
            fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
        }
        let path = directory.path().as_os_str().to_owned();
        (directory, Programs::new(Environment::new([("PATH".into(), path)].into())))
    }

    #[test]
    fn a_server_that_speaks_vnc_stands_in_for_what_is_missing() {
        let server = |names: &[&str]| image(names).1.screen_server();
        assert!(matches!(server(&["Xvfb", "x11vnc", "Xvnc"]), Some(ScreenServer::Xvfb(_))));
        assert!(matches!(server(&["Xvfb", "Xtigervnc"]), Some(ScreenServer::Xvnc(_))));
        assert!(matches!(server(&["Xvfb"]), Some(ScreenServer::Xvfb(_))));
        assert!(matches!(server(&["Xvnc"]), Some(ScreenServer::Xvnc(_))));
        assert_eq!(server(&["x11vnc"]), None);
    }

    #[test]
    fn the_best_window_manager_is_taken() {
        let name = |names: &[&str]| {
            let argv = image(names).1.window_manager()?;
            Some(Path::new(&argv[0]).file_name().unwrap().to_str().unwrap().to_owned())
        };
        assert_eq!(name(&["openbox", "startxfce4", "i3"]).as_deref(), Some("startxfce4"));
        assert_eq!(name(&["i3", "openbox"]).as_deref(), Some("openbox"));
        assert_eq!(name(&["twm"]), None);
    }
}
