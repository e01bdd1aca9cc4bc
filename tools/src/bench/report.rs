//! What came out, side by side.

use std::io::Write;
use std::time::Duration;

use anyhow::Result;
use serde_json::json;

use super::load::Run;

/// What a server came to: medians over its runs.
struct Figures {
    rate: f64,
    rates: (f64, f64),
    p50: Duration,
    p99: Duration,
    server_nanos: Option<f64>,
}

fn median(mut values: Vec<f64>) -> f64 {
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
        let nanos: Vec<f64> = runs.iter().filter_map(Run::server_nanos).collect();
        Self {
            rate: median(rates),
            rates: (lowest, highest),
            p50: percentile(50.0),
            p99: percentile(99.0),
            server_nanos: (!nanos.is_empty()).then(|| median(nanos)),
        }
    }
}

/// Prints each server's figures, and how the others compare to the last.
pub fn print(names: &[&str], runs: &[Vec<Run>], as_json: bool) -> Result<()> {
    let mut out = std::io::stdout().lock();
    let figures: Vec<Figures> = runs.iter().map(|runs| Figures::of(runs)).collect();
    let last = figures.last().map_or(1.0, |last| last.rate);
    let last_nanos = figures.last().and_then(|last| last.server_nanos);
    for (name, figures) in names.iter().zip(&figures) {
        let ratio = figures.rate / last;
        let processor = figures.server_nanos.zip(last_nanos);
        let processor = processor.map(|(own, last)| own / last);
        if as_json {
            let line = json!({
                "server": name,
                "per_second": figures.rate.round(),
                "per_second_lowest": figures.rates.0.round(),
                "per_second_highest": figures.rates.1.round(),
                "p50_us": figures.p50.as_micros() as u64,
                "p99_us": figures.p99.as_micros() as u64,
                "server_ns": figures.server_nanos.map(f64::round),
                "ratio": ratio,
                "server_ratio": processor,
            });
            writeln!(out, "{line}")?;
            continue;
        }
        write!(
            out,
            "{name:<22} {:>10.0}/s ({:.0} to {:.0})   p50 {:>7.0?}  p99 {:>7.0?}   {ratio:.2}x",
            figures.rate, figures.rates.0, figures.rates.1, figures.p50, figures.p99,
        )?;
        if let Some(nanos) = figures.server_nanos {
            write!(out, "   server {nanos:.0} ns each")?;
        }
        if let Some(processor) = processor {
            write!(out, " {processor:.2}x")?;
        }
        writeln!(out)?;
    }
    Ok(())
}
