//! One request to an admin port at a time: HTTP/1.1 without TLS, because it never leaves the pod. For the commands that ask the
//! relay which runs beside them.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use clap::Args;
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http1::handshake;
use hyper::{Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Which relay is asked, and how its answer is printed.
#[derive(Debug, Args)]
pub struct ClientArguments {
    /// The relay's admin port.
    #[arg(
        long,
        global = true,
        env = "POSTROAD_ADMIN",
        value_name = "HOST:PORT",
        default_value = "localhost:9090"
    )]
    pub admin: String,
    /// The file with the pool's admin token.
    #[arg(
        long,
        global = true,
        env = "POSTROAD_ADMIN_TOKEN_FILE",
        value_name = "FILE",
        default_value = "/etc/postroad/admin-token"
    )]
    pub token_file: PathBuf,
    /// Print the API's JSON.
    #[arg(long, global = true)]
    pub json: bool,
}

/// An admin port and the token that opens it.
pub(crate) struct Client {
    address: String,
    token: String,
}

#[derive(Deserialize)]
struct Refused {
    error: String,
}

impl Client {
    pub(crate) fn new(arguments: &ClientArguments) -> anyhow::Result<Self> {
        Self::open(&arguments.admin, &arguments.token_file)
    }

    fn open(address: &str, token_file: &Path) -> anyhow::Result<Self> {
        let token = std::fs::read_to_string(token_file)
            .with_context(|| format!("the admin token {} cannot be read", token_file.display()))?;
        Ok(Self { address: address.to_owned(), token: token.trim_end().to_owned() })
    }

    /// What stands at this path.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        self.request(Method::GET, path).await
    }

    /// What comes of an order to this path.
    pub(crate) async fn post<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        self.request(Method::POST, path).await
    }

    async fn request<T: DeserializeOwned>(&self, method: Method, path: &str) -> anyhow::Result<T> {
        let exchange = timeout(PATIENCE, self.exchange(method, path));
        let answer = exchange.await.map_err(|_| anyhow::anyhow!("no answer within {PATIENCE:?}"));
        let (status, body) =
            answer.flatten().with_context(|| format!("the relay at {} does not answer", self.address))?;
        if !status.is_success() {
            match serde_json::from_slice::<Refused>(&body) {
                Ok(Refused { error }) => bail!("{error}"),
                Err(_) => bail!("the relay at {} answered {status}", self.address),
            }
        }
        serde_json::from_slice(&body).with_context(|| format!("{} is no relay of this version", self.address))
    }

    async fn exchange(&self, method: Method, path: &str) -> anyhow::Result<(StatusCode, Bytes)> {
        let stream = TcpStream::connect(&self.address).await?;
        let (mut sender, connection) = handshake(TokioIo::new(stream)).await?;
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, &self.address)
            .header(header::AUTHORIZATION, format!("Bearer {}", self.token))
            .body(Empty::<Bytes>::new())
            .context("the admin token has characters that no token has")?;
        let answer = async {
            let response = sender.send_request(request).await?;
            let status = response.status();
            let body = response.into_body().collect().await?.to_bytes();
            anyhow::Ok((status, body))
        };
        tokio::pin!(connection, answer);
        tokio::select! {
            answer = &mut answer => answer,
            ended = &mut connection => {
                ended?;
                answer.await
            }
        }
    }
}

/// Prints what the API has answered.
pub(crate) fn print_json(out: &mut impl Write, value: &impl Serialize) -> anyhow::Result<()> {
    // Through `io::Error`, so that a closed pipe is known as such.
    serde_json::to_writer_pretty(&mut *out, value).map_err(std::io::Error::from)?;
    writeln!(out)?;
    Ok(())
}
