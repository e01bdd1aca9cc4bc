//! Profiles over HTTP, where Go's programs have them.

use std::time::Duration;

use axum::Router;
use axum::extract::RawQuery;
use axum::http::{StatusCode, Uri, header};
use axum::response::{Html, IntoResponse, Response};

use super::cpu::cpu_profile;
use crate::monitor::answer::plain;
use crate::monitor::endpoints::parse_query;
use crate::monitor::variables;

/// How long samples are taken when nobody says.
const SECONDS_DEFAULT: u64 = 30;
/// The longest that samples are taken.
const SECONDS_MAX: u64 = 600;
const INDEX: &str = "<!DOCTYPE html>\n<html lang=\"en\">\n<head><title>/debug/pprof/</title></head>\n<body>\n<ul>\n\
    <li><a href=\"profile?seconds=30\">profile</a> where the processors' time goes, for so many seconds</li>\n\
    <li><a href=\"cmdline\">cmdline</a> the command line</li>\n</ul>\n</body>\n</html>\n";

/// All of it.
pub fn router() -> Router {
    Router::new().fallback(answer)
}

async fn answer(uri: Uri, RawQuery(query): RawQuery) -> Response {
    match uri.path() {
        "/debug/pprof" | "/debug/pprof/" => Html(INDEX).into_response(),
        "/debug/pprof/cmdline" => {
            let words: Vec<String> = variables::command_line();
            plain(StatusCode::OK, words.join("\0"))
        }
        "/debug/pprof/profile" => profile(query.as_deref().unwrap_or_default()).await,
        "/debug/vars" => variables::answer(),
        path => match path.strip_prefix("/debug/pprof/") {
            Some(_) => plain(
                StatusCode::NOT_FOUND,
                "Unknown profile: this server has CPU profiles only\n",
            ),
            None => plain(StatusCode::NOT_FOUND, "404 page not found\n"),
        },
    }
}

async fn profile(query: &str) -> Response {
    let Some(duration) = duration(query) else {
        let reason = format!("seconds must be between 1 and {SECONDS_MAX}\n");
        return plain(StatusCode::BAD_REQUEST, reason);
    };
    let taken = tokio::task::spawn_blocking(move || cpu_profile(duration)).await;
    match taken {
        Ok(Ok(profile)) => {
            let headers = [
                (header::CONTENT_TYPE, "application/octet-stream"),
                (
                    header::CONTENT_DISPOSITION,
                    "attachment; filename=\"profile\"",
                ),
                (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            ];
            (headers, profile).into_response()
        }
        Ok(Err(error)) => plain(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
        Err(_) => plain(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the server is shutting down\n",
        ),
    }
}

/// As Go's: without a number, or with 0, the default.
fn duration(query: &str) -> Option<Duration> {
    let pairs = parse_query(query);
    let said = pairs.iter().find(|(name, _)| name == "seconds");
    let seconds = match said.map(|(_, value)| value.parse::<u64>()) {
        None | Some(Ok(0)) => SECONDS_DEFAULT,
        Some(Ok(seconds)) => seconds,
        Some(Err(_)) => return None,
    };
    (seconds <= SECONDS_MAX).then(|| Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_of_a_profile_has_a_default_and_a_limit() {
        assert_eq!(duration(""), Some(Duration::from_secs(30)));
        assert_eq!(duration("seconds=0&x=1"), Some(Duration::from_secs(30)));
        assert_eq!(duration("seconds=2"), Some(Duration::from_secs(2)));
        for wrong in ["seconds=601", "seconds=-1", "seconds=x", "seconds=1.5"] {
            assert_eq!(duration(wrong), None, "{wrong}");
        }
    }
}
