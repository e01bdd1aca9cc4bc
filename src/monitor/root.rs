//! `/`: a page that lists the endpoints.

use super::endpoints::ENDPOINTS;
use crate::server::version::REFERENCE_VERSION;
use axum::response::{Html, IntoResponse, Response};
use std::fmt::Write;

/// The page.
pub fn answer(base: &str) -> Response {
    let mut page = String::from(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head><title>nats-server</title></head>\n<body>\n",
    );
    let _ = writeln!(page, "<h1>nats-server {REFERENCE_VERSION}</h1>\n<ul>");
    for (path, title) in ENDPOINTS {
        let _ = writeln!(
            page,
            "<li><a href=\"{base}{path}\">{title}</a> <code>{path}</code></li>"
        );
    }
    page.push_str("</ul>\n</body>\n</html>\n");
    Html(page).into_response()
}
