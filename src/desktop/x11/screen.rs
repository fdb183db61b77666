//! The size of the screen (RandR 1.2).

use x11rb::connection::Connection as _;
use x11rb::protocol::randr::{self, ConnectionExt as _, Mode, ModeFlag, ModeInfo, Rotation};
use x11rb::protocol::xproto::ConnectionExt as _;

use super::{Failure, Wire};
use crate::error::{Error, ErrorKind};

/// Modes that we make have names that begin with this.
const OURS: &str = "toolboxd-";
/// Pixels of an inch, for the sizes in millimetres that RandR wants.
const DPI: u32 = 96;

impl Wire {
    /// The largest size that the screen can be changed to.
    pub(crate) fn largest_size(&self) -> Result<(u16, u16), Failure> {
        if !self.has.randr {
            return self.size();
        }
        let range = self.x.randr_get_screen_size_range(self.root)?.reply()?;
        Ok((range.max_width, range.max_height))
    }

    /// Changes the size of the screen, by a mode that is made when the server has none like it.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] when the server cannot show that size.
    pub(crate) fn set_size(&self, width: u16, height: u16) -> Result<(), Failure> {
        if self.size()? == (width, height) {
            return Ok(());
        }
        let refused = |why: &str| {
            Error::new(ErrorKind::Conflict, format!("the screen cannot be {width}x{height} pixels: {why}"))
        };
        let (most_wide, most_high) = self.largest_size()?;
        if !self.has.randr || width > most_wide || height > most_high {
            return Err(refused(&format!("its X server goes up to {most_wide}x{most_high}")).into());
        }
        let resources = self.x.randr_get_screen_resources_current(self.root)?.reply()?;
        let outputs = resources
            .outputs
            .iter()
            .map(|output| self.x.randr_get_output_info(*output, resources.config_timestamp));
        let outputs = outputs.collect::<Result<Vec<_>, _>>()?;
        let mut shown = None;
        for (output, info) in resources.outputs.iter().zip(outputs) {
            let info = info.reply()?;
            if info.crtc != 0 && shown.is_none() {
                shown = Some((*output, info));
            }
        }
        let (output, info) = shown.ok_or_else(|| refused("it has no output"))?;
        let fits = |mode: &&ModeInfo| (mode.width, mode.height) == (width, height);
        let known = resources.modes.iter().filter(|mode| info.modes.contains(&mode.id)).find(fits);
        let mode = match known {
            Some(mode) => mode.id,
            None => self.make_mode(output, width, height)?,
        };
        self.x.grab_server()?;
        let changed = self.show(info.crtc, output, mode, (width, height));
        self.x.ungrab_server()?;
        self.sync()?;
        changed?;
        self.forget_modes(output, &resources, mode)
    }

    /// In the order that keeps every mode within the screen: off, size, on.
    fn show(&self, crtc: u32, output: u32, mode: Mode, (width, height): (u16, u16)) -> Result<(), Failure> {
        let millimetres = |pixels: u16| u32::from(pixels) * 254 / (DPI * 10);
        let set = |mode: Mode, outputs: &[u32]| {
            self.x.randr_set_crtc_config(crtc, 0, 0, 0, 0, mode, Rotation::ROTATE0, outputs)
        };
        let off = set(0, &[])?;
        let size = self.x.randr_set_screen_size(
            self.root,
            width,
            height,
            millimetres(width),
            millimetres(height),
        )?;
        let on = set(mode, &[output])?;
        off.reply()?;
        self.check(size)?;
        match on.reply()?.status {
            randr::SetConfig::SUCCESS => Ok(()),
            status => Err(Failure::Refused(format!("SetCrtcConfig: {status:?}"))),
        }
    }

    fn make_mode(&self, output: u32, width: u16, height: u16) -> Result<Mode, Failure> {
        let name = format!("{OURS}{width}x{height}");
        // Nothing is scanned out: the timings only have to make sense, here for 60 pictures a second.
        let (total_wide, total_high) = (width.saturating_add(160), height.saturating_add(40));
        let info = ModeInfo {
            id: 0,
            width,
            height,
            dot_clock: u32::from(total_wide) * u32::from(total_high) * 60,
            hsync_start: width.saturating_add(48),
            hsync_end: width.saturating_add(80),
            htotal: total_wide,
            hskew: 0,
            vsync_start: height.saturating_add(3),
            vsync_end: height.saturating_add(9),
            vtotal: total_high,
            name_len: name.len() as u16,
            mode_flags: ModeFlag::HSYNC_POSITIVE | ModeFlag::VSYNC_POSITIVE,
        };
        let mode = self.x.randr_create_mode(self.root, info, name.as_bytes())?.reply()?.mode;
        self.check(self.x.randr_add_output_mode(output, mode)?)?;
        Ok(mode)
    }

    /// Removes modes that we made before, so that changing the size again and again leaves nothing behind.
    fn forget_modes(
        &self,
        output: u32,
        before: &randr::GetScreenResourcesCurrentReply,
        shown: Mode,
    ) -> Result<(), Failure> {
        let mut names = &before.names[..];
        for mode in &before.modes {
            let (name, rest) = names.split_at(usize::from(mode.name_len).min(names.len()));
            names = rest;
            if name.starts_with(OURS.as_bytes()) && mode.id != shown {
                self.x.randr_delete_output_mode(output, mode.id)?.ignore_error();
                self.x.randr_destroy_mode(mode.id)?.ignore_error();
            }
        }
        Ok(self.x.flush()?)
    }
}
