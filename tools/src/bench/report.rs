//! What came out, side by side.

use std::io::Write;
use std::time::Duration;

use anyhow::Result;
use serde_json::json;

use super::Targets;
use super::run::Run;

/// What a server came to: medians over its runs.
struct Figures {
    rate: f64,
    rates: (f64, f64),
    /// The median and the 99th percentile of an operation, where each was timed.
    latency: Option<(Duration, Duration)>,
    server_nanos: Option<f64>,
}

/// The one in the middle, or 0 of none.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

impl Figures {
    fn of(runs: &[Run]) -> Self {
        let rates: Vec<f64> = runs.iter().map(Run::per_second).collect();
        let lowest = rates.iter().copied().fold(f64::INFINITY, f64::min);
        let highest = rates.iter().copied().fold(0.0, f64::max);
        let percentile = |percent: f64| {
            let each = runs
                .iter()
                .map(|run| run.latencies.clone().percentile(percent));
            Duration::from_secs_f64(median(each.map(|time| time.as_secs_f64()).collect()))
        };
        let is_timed = runs.iter().any(|run| !run.latencies.is_empty());
        let nanos: Vec<f64> = runs.iter().filter_map(Run::server_nanos).collect();
        Self {
            rate: median(rates),
            rates: (lowest, highest),
            latency: is_timed.then(|| (percentile(50.0), percentile(99.0))),
            server_nanos: (!nanos.is_empty()).then(|| median(nanos)),
        }
    }
}

fn ratio(own: Duration, other: Duration) -> f64 {
    own.as_secs_f64() / other.as_secs_f64()
}

/// Prints each server's figures, and how the others compare to the last. `what` names the load where one command puts several.
pub fn print(targets: &Targets, what: &str, runs: &[Vec<Run>]) -> Result<()> {
    let mut out = std::io::stdout().lock();
    let figures: Vec<Figures> = runs.iter().map(|runs| Figures::of(runs)).collect();
    let Some(last) = figures.last() else {
        return Ok(());
    };
    if !what.is_empty() && !targets.json {
        writeln!(out, "{what}")?;
    }
    for (server, figures) in targets.servers.iter().zip(&figures) {
        let rate_ratio = figures.rate / last.rate;
        let processor = figures.server_nanos.zip(last.server_nanos);
        let processor = processor.map(|(own, last)| own / last);
        let latency = figures.latency.zip(last.latency);
        let latency = latency.map(|(own, last)| (ratio(own.0, last.0), ratio(own.1, last.1)));
        if targets.json {
            let micros = |time: Duration| (time.as_nanos() / 100) as f64 / 10.0;
            let line = json!({
                "load": what,
                "server": server.address,
                "per_second": figures.rate.round(),
                "per_second_lowest": figures.rates.0.round(),
                "per_second_highest": figures.rates.1.round(),
                "p50_us": figures.latency.map(|(p50, _)| micros(p50)),
                "p99_us": figures.latency.map(|(_, p99)| micros(p99)),
                "server_ns": figures.server_nanos.map(f64::round),
                "ratio": rate_ratio,
                "p50_ratio": latency.map(|(p50, _)| p50),
                "p99_ratio": latency.map(|(_, p99)| p99),
                "server_ratio": processor,
            });
            writeln!(out, "{line}")?;
            continue;
        }
        write!(
            out,
            "{:<22} {:>10.0}/s ({:.0} to {:.0}) {rate_ratio:.2}x",
            server.address, figures.rate, figures.rates.0, figures.rates.1,
        )?;
        if let (Some((p50, p99)), Some((p50_ratio, p99_ratio))) = (figures.latency, latency) {
            write!(
                out,
                "   p50 {p50:.1?} {p50_ratio:.2}x  p99 {p99:.1?} {p99_ratio:.2}x"
            )?;
        }
        if let (Some(nanos), Some(processor)) = (figures.server_nanos, processor) {
            write!(out, "   server {nanos:.0} ns each {processor:.2}x")?;
        }
        writeln!(out)?;
    }
    Ok(())
}
