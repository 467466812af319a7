//! Brings one message to its receiver: by webhook, or by mail.
//!
//! A webhook is a POST of JSON with `X-R58-Delivery` (the same at every attempt, so that a receiver can tell a second one),
//! `X-R58-Timestamp` (seconds since 1970, of this attempt) and, where the receiver has a secret, `X-R58-Signature`: `v1=` and the
//! hex HMAC-SHA256 of timestamp, a full stop and the body. Any 2xx is a receipt; redirections are not followed.

use std::fmt;
use std::time::Duration;

use chrono::Utc;
use hmac::{Hmac, Mac};
use lettre::message::{Mailbox, header::ContentType};
use lettre::transport::smtp;
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, CertificateStore, Tls, TlsParameters};
use lettre::{AsyncSmtpTransport, AsyncTransport, Tokio1Executor};
use reqwest::redirect::Policy;
use sha2::Sha256;

use super::message::Message;
use super::plan::{AlertPlan, SmtpPlan, SmtpTls};
use super::target::{self, ResolveError};

/// One attempt takes no longer.
pub const WITHIN: Duration = Duration::from_secs(15);

/// To whom.
#[derive(Clone)]
pub enum Target {
    /// A webhook, and what its messages are signed with.
    Webhook {
        /// Where.
        url: String,
        /// What messages are signed with.
        secret: Option<String>,
    },
    /// Addresses.
    Email(Vec<String>),
}

impl fmt::Debug for Target {
    /// Without what is nobody's business: of a webhook its server alone.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Webhook { url, .. } => f.debug_tuple("Webhook").field(&target::shown(url)).finish(),
            Self::Email(addresses) => f.debug_tuple("Email").field(addresses).finish(),
        }
    }
}

/// Why a message did not arrive; in words without secrets.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CourierError {
    /// Another attempt may help.
    #[error("{0}")]
    Failed(String),
    /// None will.
    #[error("{0}")]
    Hopeless(String),
}

/// The signature of a body at a time.
pub fn signature(secret: &str, timestamp: i64, body: &str) -> String {
    // HMAC takes keys of any length.
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("a key of any length");
    mac.update(format!("{timestamp}.").as_bytes());
    mac.update(body.as_bytes());
    format!("v1={}", hex::encode(mac.finalize().into_bytes()))
}

/// One attempt.
///
/// # Errors
/// When the receiver did not take it.
pub async fn bring(plan: &AlertPlan, target: &Target, body: &str) -> Result<(), CourierError> {
    let message: Message =
        serde_json::from_str(body).map_err(|_| CourierError::Hopeless("the message is damaged".into()))?;
    let brought = async {
        match target {
            Target::Webhook { url, secret } => call(plan, url, secret.as_deref(), &message.delivery_id, body).await,
            Target::Email(addresses) => mail(plan.smtp.as_ref(), addresses, &message).await,
        }
    };
    let late = |_| CourierError::Failed(format!("no answer within {} s", WITHIN.as_secs()));
    tokio::time::timeout(WITHIN, brought).await.map_err(late)?
}

async fn call(plan: &AlertPlan, url: &str, secret: Option<&str>, id: &str, body: &str) -> Result<(), CourierError> {
    let url = target::check_url(url, plan.allow_private_targets).map_err(CourierError::Hopeless)?;
    let addrs = target::resolve(&url, plan.allow_private_targets).await.map_err(|error| match error {
        ResolveError::Inside => CourierError::Hopeless(error.to_string()),
        ResolveError::Unknown => CourierError::Failed(error.to_string()),
    })?;
    // A proxy would resolve the name anew.
    let client = reqwest::Client::builder().redirect(Policy::none()).no_proxy().timeout(WITHIN);
    let client = client.resolve_to_addrs(url.host_str().unwrap_or_default(), &addrs).user_agent("r58-fleet").build();
    let client = client.map_err(|_| CourierError::Failed("no HTTP client could be made".into()))?;
    let timestamp = Utc::now().timestamp();
    let mut request = client
        .post(url)
        .header("Content-Type", "application/json")
        .header("X-R58-Delivery", id)
        .header("X-R58-Timestamp", timestamp);
    if let Some(secret) = secret {
        request = request.header("X-R58-Signature", signature(secret, timestamp, body));
    }
    let answer = request.body(body.to_owned()).send().await.map_err(|error| {
        let what = if error.is_connect() { "it cannot be connected to" } else { "it gave no answer" };
        let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        CourierError::Failed(format!("{what}: {cause}"))
    })?;
    match answer.status() {
        status if status.is_success() => Ok(()),
        status => Err(CourierError::Failed(format!("it answered {status}"))),
    }
}

async fn mail(smtp: Option<&SmtpPlan>, addresses: &[String], message: &Message) -> Result<(), CourierError> {
    let hopeless = |what: String| CourierError::Hopeless(what);
    let smtp = smtp.ok_or_else(|| hopeless("this server has no mail server; see fleet.smtp".into()))?;
    let mailbox =
        |address: &str| address.parse::<Mailbox>().map_err(|error| hopeless(format!("not a mail address: {error}")));
    let from = mailbox(&smtp.from)?;
    let id = format!("<{}@{}>", message.delivery_id, from.email.domain());
    let mut letter = lettre::Message::builder().from(from).message_id(Some(id)).subject(message.subject());
    for address in addresses {
        letter = letter.to(mailbox(address)?);
    }
    let letter = letter.header(ContentType::TEXT_PLAIN).body(message.text());
    let letter = letter.map_err(|error| hopeless(format!("no letter could be made: {error}")))?;
    let tls = match smtp.tls {
        SmtpTls::StartTls => Tls::Required(tls(smtp).await?),
        SmtpTls::Tls => Tls::Wrapper(tls(smtp).await?),
        SmtpTls::None => Tls::None,
    };
    let transport = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(&smtp.host);
    let mut transport = transport.port(smtp.port).tls(tls).timeout(Some(WITHIN));
    if let Some((user, password)) = &smtp.login {
        transport = transport.credentials(Credentials::new(user.clone(), password.expose().to_owned()));
    }
    transport.build().send(letter).await.map(|_| ()).map_err(|error| CourierError::Failed(refused(&error)))
}

async fn tls(smtp: &SmtpPlan) -> Result<TlsParameters, CourierError> {
    let failed = |what: String| CourierError::Failed(format!("fleet.smtp.ca_file: {what}"));
    let mut parameters = TlsParameters::builder(smtp.host.clone());
    if let Some(file) = &smtp.ca_file {
        let pem = tokio::fs::read(file).await.map_err(|error| failed(error.to_string()))?;
        let authority = Certificate::from_pem(&pem).map_err(|error| failed(error.to_string()))?;
        parameters = parameters.certificate_store(CertificateStore::None).add_root_certificate(authority);
    }
    parameters.build().map_err(|error| CourierError::Failed(error.to_string()))
}

/// Answers about a login (RFC 4954, section 6): it is wanted, it is too weak, it is wrong, it wants TLS.
const ABOUT_LOGIN: [u16; 4] = [530, 534, 535, 538];

/// Why a mail server did not take a letter. What it says of a login is left out: some repeat what they were given.
fn refused(error: &smtp::Error) -> String {
    match error.status().map(u16::from).filter(|code| ABOUT_LOGIN.contains(code)) {
        Some(code) => format!("the mail server refuses the login of fleet.smtp ({code})"),
        None if error.is_client() => {
            let what = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
            format!("the mail server does not do what fleet.smtp asks for: {what}")
        }
        None => error.to_string(),
    }
}
