//! HTTP to a port of a pod, through the API server: works on every cluster, from outside of it.

use http::Request;
use kube::Client;

/// A port of a pod.
#[derive(Clone)]
pub struct PodPort {
    client: Client,
    path: String,
}

impl PodPort {
    /// The port `port` of the pod `pod`.
    #[must_use]
    pub fn new(client: Client, namespace: &str, pod: &str, port: u16) -> Self {
        Self { client, path: format!("/api/v1/namespaces/{namespace}/pods/{pod}:{port}/proxy") }
    }

    /// GET; `path` begins with a slash.
    ///
    /// # Errors
    /// The client's, when the API server or the pod does not answer with success.
    pub async fn get(&self, path: &str) -> Result<String, kube::Error> {
        self.send(Request::get(format!("{}{path}", self.path))).await
    }

    /// POST without a body; `path` begins with a slash.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub async fn post(&self, path: &str) -> Result<String, kube::Error> {
        self.send(Request::post(format!("{}{path}", self.path))).await
    }

    async fn send(&self, request: http::request::Builder) -> Result<String, kube::Error> {
        let request = request.body(Vec::new()).map_err(kube::Error::HttpError)?;
        self.client.request_text(request).await
    }
}
