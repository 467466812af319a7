//! The pages, built from `src/web` and embedded in the binary: single origin, nothing fetched from elsewhere.

use actix_web::http::header::{CACHE_CONTROL, ETAG, IF_NONE_MATCH};
use actix_web::{HttpRequest, HttpResponse, ResponseError};
use rust_embed::{Embed, EmbeddedFile};

use crate::problem::Problem;

/// Which side's pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PageSet {
    /// Multiview, guest page and status of a box.
    Device,
    /// Dashboard of the fleet.
    Fleet,
}

#[derive(Embed)]
#[folder = "src/web/dist/"]
#[allow_missing = true]
struct Built;

/// Only what a page needs: its own scripts, styles, pictures and connections, and media from `blob:`.
pub const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; \
     media-src 'self' blob: mediastream:; connect-src 'self'; font-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

/// Answers a page or an asset; `name` is relative to the set (`index.html`, `assets/app-1a2b.js`).
pub fn serve(set: PageSet, name: &str, request: &HttpRequest) -> HttpResponse {
    let folder = match set {
        PageSet::Device => "device",
        PageSet::Fleet => "fleet",
    };
    match Built::get(&format!("{folder}/{name}")) {
        Some(file) => answer(name, &file, request),
        None => Problem::not_found("no such page").error_response(),
    }
}

fn answer(name: &str, file: &EmbeddedFile, request: &HttpRequest) -> HttpResponse {
    let etag = format!("\"{}\"", hex::encode(&file.metadata.sha256_hash()[..12]));
    // Assets carry a hash of their content in their name; pages must be asked for again after an upgrade.
    let cache = if name.starts_with("assets/") { "public, max-age=31536000, immutable" } else { "no-cache" };
    let known = request.headers().get(IF_NONE_MATCH).is_some_and(|value| value.as_bytes() == etag.as_bytes());
    let mut response = if known { HttpResponse::NotModified() } else { HttpResponse::Ok() };
    response
        .insert_header((ETAG, etag))
        .insert_header((CACHE_CONTROL, cache))
        .insert_header(("Content-Security-Policy", CONTENT_SECURITY_POLICY))
        .insert_header(("X-Content-Type-Options", "nosniff"))
        .insert_header(("Referrer-Policy", "no-referrer"));
    if known {
        return response.finish();
    }
    response.content_type(mime_guess::from_path(name).first_or_octet_stream().as_ref()).body(file.data.to_vec())
}
