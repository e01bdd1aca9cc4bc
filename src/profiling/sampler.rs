//! A timer that interrupts whatever thread uses a processor, and notes where it is.
//!
//! # Invariant
//! What runs inside the signal touches only memory that was made before and is freed when no signal is at work: it allocates nothing,
//! takes no lock, does not panic and writes to no slot that another signal writes to.
//!
//! The unwinder of the C runtime looks through the stack. Since glibc 2.35 it finds the tables that it needs without a lock; with
//! an older one only a thread that is in this program's own code is looked through, and of the others only the place is noted.

#![allow(
    unsafe_code,
    reason = "signals, timers and the unwinder are the system's"
)]

use std::io;
use std::time::Duration;

/// Frames of a stack that are noted.
const FRAMES_MAX: usize = 64;
/// Samples that are kept at most, whatever the number of processors: 64 of them for ten minutes would be more.
const SAMPLES_MAX: usize = 64 * 1024;

/// Where a thread was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sample {
    /// The thread's number.
    pub(super) thread: i32,
    /// Addresses, the innermost first; those of callers are of the call, not of what comes after it.
    pub(super) addresses: Vec<u64>,
}

pub(super) use system::Sampler;

#[cfg(all(
    target_os = "linux",
    target_env = "gnu",
    any(target_arch = "x86_64", target_arch = "aarch64")
))]
mod system {
    use std::ffi::{CStr, c_int, c_void};
    use std::ptr;
    use std::sync::atomic::{AtomicI32, AtomicPtr, AtomicU64, AtomicUsize, Ordering};

    use super::*;

    /// A place for one sample. Filled by one signal, read when no signal comes any more.
    struct Slot {
        thread: AtomicI32,
        length: AtomicUsize,
        addresses: [AtomicU64; FRAMES_MAX],
    }

    /// What signals write to.
    struct Board {
        slots: Vec<Slot>,
        next: AtomicUsize,
        own_code: (u64, u64),
        looks_everywhere: bool,
    }

    /// Where signals find it; null while nobody takes samples.
    static BOARD: AtomicPtr<Board> = AtomicPtr::new(ptr::null_mut());

    /// Signals that are at work.
    static WORKING: AtomicUsize = AtomicUsize::new(0);

    /// A timer that runs. Stopped when it is dropped.
    pub(in super::super) struct Sampler {
        board: Box<Board>,
        before: libc::sigaction,
    }

    impl Sampler {
        /// Interrupts threads each time that the process has used so much of a processor, for about so long.
        pub(in super::super) fn start(period: Duration, duration: Duration) -> io::Result<Self> {
            let processors = std::thread::available_parallelism().map_or(1, usize::from);
            let each = duration.as_micros() / period.as_micros().max(1);
            let expected = usize::try_from(each).unwrap_or(SAMPLES_MAX);
            let wanted = expected.saturating_mul(processors).saturating_add(64);
            let board = Box::new(Board {
                slots: (0..wanted.min(SAMPLES_MAX)).map(|_| Slot::new()).collect(),
                next: AtomicUsize::new(0),
                own_code: own_code(),
                looks_everywhere: unwinder_takes_no_lock(),
            });
            // The first call loads what it needs, which must not happen inside a signal.
            look_through(&mut |_| true);
            BOARD.store(ptr::from_ref(&*board).cast_mut(), Ordering::SeqCst);
            // SAFETY: an all-zero sigaction is a valid one; its fields are set below.
            let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
            action.sa_sigaction = note as *const () as usize;
            // On the thread's own stack: the one that threads have for signals is too small for the unwinder.
            action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART;
            let mut before = action;
            // SAFETY: both are valid for the call, and the handler keeps to what a handler may do.
            if unsafe { libc::sigaction(libc::SIGPROF, &raw const action, &raw mut before) } != 0 {
                BOARD.store(ptr::null_mut(), Ordering::SeqCst);
                return Err(io::Error::last_os_error());
            }
            let sampler = Self { board, before };
            set_timer(period)?;
            Ok(sampler)
        }

        /// Ends it: the samples.
        pub(in super::super) fn stop(self) -> Vec<Sample> {
            self.halt();
            let taken = self.board.next.load(Ordering::Acquire);
            let slots = self.board.slots.iter().take(taken);
            slots.map(Slot::sample).collect()
        }

        /// From here on no signal touches the board.
        fn halt(&self) {
            let _ = set_timer(Duration::ZERO);
            BOARD.store(ptr::null_mut(), Ordering::SeqCst);
            // Whoever saw the board before has announced itself before that.
            while WORKING.load(Ordering::SeqCst) > 0 {
                std::thread::yield_now();
            }
        }
    }

    impl Drop for Sampler {
        fn drop(&mut self) {
            self.halt();
            // What was there before would end the process, should a last signal still be on its way: it stays ignored then.
            if self.before.sa_sigaction == libc::SIG_DFL {
                self.before.sa_sigaction = libc::SIG_IGN;
            }
            // SAFETY: the action is one that the system has given us, or one that ignores.
            unsafe { libc::sigaction(libc::SIGPROF, &raw const self.before, ptr::null_mut()) };
        }
    }

    impl Slot {
        fn new() -> Self {
            Self {
                thread: AtomicI32::new(0),
                length: AtomicUsize::new(0),
                addresses: [const { AtomicU64::new(0) }; FRAMES_MAX],
            }
        }

        fn sample(&self) -> Sample {
            let length = self.length.load(Ordering::Acquire);
            let addresses = self.addresses.iter().take(length);
            Sample {
                thread: self.thread.load(Ordering::Relaxed),
                addresses: addresses.map(|a| a.load(Ordering::Relaxed)).collect(),
            }
        }
    }

    /// The signal's handler.
    extern "C" fn note(_: c_int, _: *mut libc::siginfo_t, context: *mut c_void) {
        // SAFETY: the location of this thread's errno is valid as long as the thread; what interrupted code reads there must
        // be what was there before.
        let errno = unsafe { libc::__errno_location() };
        // SAFETY: as above.
        let before = unsafe { *errno };
        // Announced before the board is looked for: who takes the board away waits for all that are announced.
        WORKING.fetch_add(1, Ordering::SeqCst);
        let board = BOARD.load(Ordering::SeqCst);
        // SAFETY: null, or a board that lives until nobody is announced any more.
        if let Some(board) = unsafe { board.as_ref() } {
            board.note(interrupted(context));
        }
        WORKING.fetch_sub(1, Ordering::SeqCst);
        // SAFETY: as above.
        unsafe { *errno = before };
    }

    impl Board {
        /// Notes where this thread was when it was interrupted at this address.
        fn note(&self, at: u64) {
            let Some(slot) = self.slots.get(self.next.fetch_add(1, Ordering::AcqRel)) else {
                return;
            };
            // SAFETY: takes nothing and gives a number.
            slot.thread
                .store(unsafe { libc::gettid() }, Ordering::Relaxed);
            let (first, last) = self.own_code;
            let mut length = 0;
            if self.looks_everywhere || (first..last).contains(&at) {
                let mut found = false;
                look_through(&mut |address| {
                    // What comes before the interrupted place is the signal itself.
                    found = found || address == at;
                    if !found {
                        return true;
                    }
                    // A thread's outermost frame returns nowhere.
                    if address == 0 {
                        return false;
                    }
                    // A return address is behind its call, which may be another line or the next function.
                    let call = if length == 0 {
                        address
                    } else {
                        address.saturating_sub(1)
                    };
                    if let Some(place) = slot.addresses.get(length) {
                        place.store(call, Ordering::Relaxed);
                        length += 1;
                    }
                    length < FRAMES_MAX
                });
            }
            if length == 0
                && let Some(place) = slot.addresses.first()
            {
                place.store(at, Ordering::Relaxed);
                length = 1;
            }
            slot.length.store(length, Ordering::Release);
        }
    }

    /// Where the thread was.
    fn interrupted(context: *mut c_void) -> u64 {
        // SAFETY: with SA_SIGINFO the third argument of a handler is a ucontext_t that is valid for the call.
        let context = unsafe { &*context.cast::<libc::ucontext_t>() };
        #[cfg(target_arch = "x86_64")]
        let at = context
            .uc_mcontext
            .gregs
            .get(libc::REG_RIP as usize)
            .map_or(0, |register| *register as u64);
        #[cfg(target_arch = "aarch64")]
        let at = context.uc_mcontext.pc;
        at
    }

    /// A frame, to the unwinder and from it.
    #[repr(C)]
    struct Frame {
        _private: [u8; 0],
    }

    unsafe extern "C" {
        fn _Unwind_Backtrace(
            each: extern "C" fn(*mut Frame, *mut c_void) -> c_int,
            argument: *mut c_void,
        ) -> c_int;
        fn _Unwind_GetIP(frame: *mut Frame) -> usize;
    }

    /// What goes on, and what ends the walk.
    const GO_ON: c_int = 0;
    const END: c_int = 5;

    /// Shows the addresses of all frames of this thread, the innermost first, until told to stop.
    fn look_through(each: &mut dyn FnMut(u64) -> bool) {
        extern "C" fn show(frame: *mut Frame, argument: *mut c_void) -> c_int {
            // SAFETY: the argument is the one that is passed below, and the frame is the unwinder's for this call.
            let (each, address) = unsafe {
                (
                    &mut *argument.cast::<&mut dyn FnMut(u64) -> bool>(),
                    _Unwind_GetIP(frame),
                )
            };
            if each(address as u64) { GO_ON } else { END }
        }
        let mut each = each;
        // SAFETY: `show` gets back what is passed, while it is valid.
        unsafe { _Unwind_Backtrace(show, (&raw mut each).cast()) };
    }

    /// Whether the unwinder finds its tables without a lock.
    fn unwinder_takes_no_lock() -> bool {
        // SAFETY: the text is static.
        let version = unsafe { CStr::from_ptr(libc::gnu_get_libc_version()) };
        let mut numbers = version
            .to_str()
            .unwrap_or_default()
            .split('.')
            .map(|number| number.parse::<u32>().unwrap_or(0));
        (numbers.next(), numbers.next()) >= (Some(2), Some(35))
    }

    /// From where to where this program's own code goes.
    fn own_code() -> (u64, u64) {
        let here = own_code as *const () as u64;
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
        let range = |line: &str| {
            let (start, end) = line.split(' ').next()?.split_once('-')?;
            let start = u64::from_str_radix(start, 16).ok()?;
            Some((start, u64::from_str_radix(end, 16).ok()?))
        };
        let mut ranges = maps.lines().filter_map(range);
        let own = ranges.find(|(start, end)| (*start..*end).contains(&here));
        own.unwrap_or_default()
    }

    /// Interrupts each time that the process has used so much of a processor; never with zero.
    fn set_timer(period: Duration) -> io::Result<()> {
        let each = libc::timeval {
            tv_sec: libc::time_t::try_from(period.as_secs()).unwrap_or(libc::time_t::MAX),
            tv_usec: libc::suseconds_t::from(period.subsec_micros() as i32),
        };
        let timer = libc::itimerval {
            it_interval: each,
            it_value: each,
        };
        // SAFETY: the timer is valid for the call, and nothing is asked back.
        match unsafe { libc::setitimer(libc::ITIMER_PROF, &raw const timer, ptr::null_mut()) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

#[cfg(not(all(
    target_os = "linux",
    target_env = "gnu",
    any(target_arch = "x86_64", target_arch = "aarch64")
)))]
mod system {
    use super::*;

    /// Nothing: samples are not built for this system.
    pub(in super::super) struct Sampler;

    impl Sampler {
        pub(in super::super) fn start(_: Duration, _: Duration) -> io::Result<Self> {
            Err(io::ErrorKind::Unsupported.into())
        }

        pub(in super::super) fn stop(self) -> Vec<Sample> {
            Vec::new()
        }
    }
}
