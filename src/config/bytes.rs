//! Numbers of bytes as people read them.

/// Bytes for people: `64.00 MB`.
pub fn readable_bytes(bytes: u64) -> String {
    let units = ["K", "M", "G", "T", "P", "E"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let power = ((bytes.ilog2() / 10) as usize).min(units.len());
    let unit = units.get(power - 1).copied().unwrap_or("E");
    format!("{:.2} {unit}B", bytes as f64 / 1024f64.powi(power as i32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_readable() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.00 KB"),
            (64 << 20, "64.00 MB"),
            (3 << 39, "1.50 TB"),
            (u64::MAX, "16.00 EB"),
        ] {
            assert_eq!(readable_bytes(bytes), text);
        }
    }
}
