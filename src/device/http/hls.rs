//! HLS of the programme and the inputs: playlists that wait for news, and what they name.

use std::time::Duration;

use actix_web::body::SizedStream;
use actix_web::http::header::CACHE_CONTROL;
use actix_web::{HttpRequest, HttpResponse, web};
use futures_util::stream;
use r58_actors::viewers::hls::OpenHls;
use r58_pipelines::HlsStream;
use r58_pipelines::hls::HlsRefusal;
use serde::Deserialize;

use super::super::access::bearer;
use super::super::signalling::refused;
use super::{Face, may_watch, problem_of, shut};
use crate::problem::{Answer, Problem};

/// Longest that the start of an input's encoder may take.
const PATIENCE: Duration = Duration::from_secs(8);
/// The one playlist of a stream.
const PLAYLIST: &str = "index.m3u8";
/// What a playlist names never changes, and is gone from it soon.
const UNCHANGING: &str = "private, max-age=60, immutable";

/// The directives of RFC 8216bis, section 6.2.5, and a token for players that cannot set headers.
#[derive(Deserialize)]
struct Asked {
    #[serde(rename = "_HLS_msn")]
    segment: Option<u64>,
    #[serde(rename = "_HLS_part")]
    part: Option<u64>,
    token: Option<String>,
}

pub fn routes(config: &mut web::ServiceConfig) {
    config.service(web::resource("/hls/{name}/{file}").route(web::get().to(answer)).route(web::head().to(answer)));
}

async fn answer(
    face: web::Data<Face>,
    path: web::Path<(String, String)>,
    asked: web::Query<Asked>,
    request: HttpRequest,
) -> Answer {
    let (name, file) = path.into_inner();
    let token = asked.token.clone().or_else(|| bearer(&request));
    may_watch(&face, &request, Some(&name), token.as_deref())?;
    let mut response = HttpResponse::Ok();
    if token.is_some() {
        // A token is sent by nobody who does not mean to, so players on pages of any origin may use it.
        response.insert_header(("Access-Control-Allow-Origin", "*"));
    }
    if file == PLAYLIST {
        let query = asked.token.as_ref().map(|token| format!("?token={token}")).unwrap_or_default();
        let stream = watched(&face, &name).await?;
        let text = stream.playlist(asked.segment, asked.part, &query).await.map_err(unanswered)?;
        response.insert_header((CACHE_CONTROL, "no-store")).content_type("application/vnd.apple.mpegurl");
        return Ok(response.body(text));
    }
    let pieces = find(&face, &name, &file).await?;
    let length = pieces.iter().map(|piece| piece.len() as u64).sum();
    response.insert_header((CACHE_CONTROL, UNCHANGING)).content_type("video/mp4");
    let pieces = stream::iter(pieces.into_iter().map(Ok::<_, std::convert::Infallible>));
    Ok(response.body(SizedStream::new(length, pieces)))
}

/// The stream of that name; the first who asks has it put up.
async fn watched(face: &Face, name: &str) -> Result<HlsStream, Problem> {
    if let Some(stream) = face.device.hls.get(name) {
        return Ok(stream);
    }
    let order = OpenHls { name: name.to_owned() };
    let opened = face.device.viewers.open_hls.send_within(order, PATIENCE).await.map_err(|error| shut(&error))?;
    opened.map_err(|error| refused(&error))?;
    face.device.hls.get(name).ok_or_else(|| Problem::unavailable("the stream ended").retry_after(PATIENCE))
}

/// A file of the stream, or of one that it replaced. Nothing is put up for it: whoever knows the name of a file has read the
/// playlist.
async fn find(face: &Face, name: &str, file: &str) -> Result<Vec<bytes::Bytes>, Problem> {
    let Some(stream) = face.device.hls.get(name) else { return Err(unanswered(HlsRefusal::Unknown)) };
    match stream.file(file).await {
        Err(HlsRefusal::Unknown) => {}
        answer => return answer.map_err(unanswered),
    }
    for before in face.device.hls.replaced(name) {
        if let Ok(pieces) = before.file(file).await {
            return Ok(pieces);
        }
    }
    Err(unanswered(HlsRefusal::Unknown))
}

fn unanswered(refusal: HlsRefusal) -> Problem {
    let problem = problem_of(refusal.status(), refusal.to_string());
    if refusal.status() == 503 { problem.retry_after(Duration::from_secs(1)) } else { problem }
}
