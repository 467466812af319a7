//! What the server counts and measures over time, beside the store's own: requests, and the last census.

use std::time::{Duration, Instant};

use actix_web::http::{Method, StatusCode};
use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts};
use tokio::sync::Mutex;

use super::store::{Census, Store, StoreError};

/// A census is kept for so long: several scrapers cost no more than one.
const CENSUS_LASTS: Duration = Duration::from_secs(10);
/// From an answer out of memory to one that ran into its deadline.
const SECONDS: [f64; 10] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 10.0];
/// What is asked for and is no path of ours; one word, so that nobody can make series by making paths.
const UNMATCHED: &str = "unmatched";

/// Counters and histograms since the server started.
#[derive(Debug)]
pub struct Meters {
    /// Requests by method, route and status.
    pub requests: IntCounterVec,
    /// Time until the answer's head was ready, by method and route.
    pub seconds: HistogramVec,
    /// Boxes that Home Assistant is not told of, by organization.
    pub untold: IntGaugeVec,
    census: Mutex<Option<(Instant, Census)>>,
}

impl Default for Meters {
    fn default() -> Self {
        let requests = Opts::new("r58_fleet_http_requests_total", "Requests by method, route and status.");
        let seconds = HistogramOpts::new(
            "r58_fleet_http_request_duration_seconds",
            "Time until the head of the answer was ready, by method and route.",
        );
        let untold = Opts::new(
            "r58_fleet_home_assistant_untold",
            "Boxes beyond the first 1,000 of an organization, of which Home Assistant is not told.",
        );
        Self {
            untold: IntGaugeVec::new(untold, &["org"]).expect("a proper name"),
            requests: IntCounterVec::new(requests, &["method", "route", "status"]).expect("a proper name"),
            seconds: HistogramVec::new(seconds.buckets(SECONDS.to_vec()), &["method", "route"]).expect("a proper name"),
            census: Mutex::new(None),
        }
    }
}

/// A method's name; those that nothing here answers to are one.
fn known(method: &Method) -> &str {
    match *method {
        Method::GET | Method::HEAD | Method::POST | Method::PUT | Method::PATCH | Method::DELETE => method.as_str(),
        _ => "other",
    }
}

impl Meters {
    /// Notes a request. `route` is the pattern that it fits, such as `/api/v1/devices/{id}`.
    pub fn answered(&self, method: &Method, route: Option<&str>, status: StatusCode, took: Duration) {
        let (method, route) = (known(method), route.unwrap_or(UNMATCHED));
        self.requests.with_label_values(&[method, route, status.as_str()]).inc();
        self.seconds.with_label_values(&[method, route]).observe(took.as_secs_f64());
    }

    /// Counts of devices and commands, at most ten seconds old.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn census(&self, store: &Store) -> Result<Census, StoreError> {
        let mut held = self.census.lock().await;
        if let Some((at, census)) = &*held
            && at.elapsed() < CENSUS_LASTS
        {
            return Ok(census.clone());
        }
        let census = store.census().await?;
        *held = Some((Instant::now(), census.clone()));
        Ok(census)
    }
}
