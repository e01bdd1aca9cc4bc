//! Progress on work that takes long, shown only to someone who is watching.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A bar over the bytes of all files that are read.
pub struct Progress {
    bar: ProgressBar,
    before: u64,
}

impl Progress {
    /// On standard error, when that is a terminal.
    pub fn new(bytes: u64) -> Self {
        let target = match std::io::stderr().is_terminal() {
            true => ProgressDrawTarget::stderr(),
            false => ProgressDrawTarget::hidden(),
        };
        let bar = ProgressBar::with_draw_target(Some(bytes), target);
        let style = "{bar:40} {bytes}/{total_bytes} {bytes_per_sec} {eta} {wide_msg}";
        if let Ok(style) = ProgressStyle::with_template(style) {
            bar.set_style(style);
        }
        Self { bar, before: 0 }
    }

    /// A file is being read now.
    pub fn file(&self, name: &str) {
        self.bar.set_message(name.to_owned());
    }

    /// How far in the file.
    pub fn at(&self, bytes: u64) {
        self.bar.set_position(self.before + bytes);
    }

    /// The file is done.
    pub fn done(&mut self, file_bytes: u64) {
        self.before += file_bytes;
        self.bar.set_position(self.before);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
