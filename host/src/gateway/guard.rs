//! What every request passes: is it for us, may it, is there room; and what is counted of it.

use axum::{
    extract::{MatchedPath, Request, State},
    http::{HeaderMap, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::{ApiError, Gateway, Peer};
use crate::clock::Stopwatch;

/// Routes that need no token from the machine itself, and that are answered however busy the gateway is.
const OPEN_ROUTES: [&str; 2] = ["/healthz", "/metrics"];

/// Checks, answers and counts one request.
pub(super) async fn guard(
    State(gateway): State<Gateway>,
    matched: Option<MatchedPath>,
    request: Request,
    next: Next,
) -> Response {
    let watch = Stopwatch::start();
    let metrics = &gateway.inner.metrics;
    let method = request.method().clone();
    let route = matched.as_ref().map_or("", MatchedPath::as_str);
    metrics.http_in_flight(1);
    let _count = OnDrop(|| metrics.http_in_flight(-1));
    let response = match admit(&gateway, route, &request) {
        // The permit lives until the head of the response: streams are bounded by connections.
        Ok(_permit) => next.run(request).await,
        Err(refusal) => refusal.into_response(),
    };
    metrics.http_answered(route, method.as_str(), response.status().as_u16(), watch.elapsed());
    response
}

type Permit = Option<tokio::sync::OwnedSemaphorePermit>;

fn admit(gateway: &Gateway, route: &str, request: &Request) -> Result<Permit, ApiError> {
    check_host(request.headers(), request.uri().host())?;
    let is_open = OPEN_ROUTES.contains(&route);
    let is_local = request.extensions().get::<Peer>().is_some_and(|peer| peer.0.ip().to_canonical().is_loopback());
    if !(is_open && is_local) {
        check_token(gateway, request.headers())?;
    }
    if is_open {
        return Ok(None);
    }
    let busy = |_| {
        let message = "gateway answers as many requests as it may: try again in a second";
        ApiError::later(StatusCode::TOO_MANY_REQUESTS, "busy", message)
    };
    gateway.inner.requests.clone().try_acquire_owned().map(Some).map_err(busy)
}

fn check_token(gateway: &Gateway, headers: &HeaderMap) -> Result<(), ApiError> {
    let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let given = given.and_then(|value| value.strip_prefix("Bearer "));
    match given {
        Some(given) if gateway.inner.token.is(given) => Ok(()),
        Some(_) => {
            Err(unauthorized("token is wrong: use the one in the file `token` of the coordinator's data directory"))
        }
        None => Err(unauthorized(
            "token is missing: send `Authorization: Bearer TOKEN` with the file `token` of the coordinator's data directory",
        )),
    }
}

fn unauthorized(message: &str) -> ApiError {
    ApiError::new(StatusCode::UNAUTHORIZED, "token", message)
}

/// A web page that had its name pointed at this machine still sends its own name. Addresses cannot be rebound.
/// Answers requests that are addressed to this machine by its own name, and no others.
pub(super) async fn local_names(request: Request, next: Next) -> Response {
    match check_host(request.headers(), request.uri().host()) {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal.into_response(),
    }
}

fn check_host(headers: &HeaderMap, authority: Option<&str>) -> Result<(), ApiError> {
    let host = headers.get(header::HOST).and_then(|value| value.to_str().ok());
    let named = [authority, host];
    if named.iter().all(Option::is_none) || !named.into_iter().flatten().all(is_local_name) {
        let message = "request is for another host: address the gateway as localhost or by its IP address";
        return Err(ApiError::new(StatusCode::MISDIRECTED_REQUEST, "host", message));
    }
    let Some(origin) = headers.get(header::ORIGIN) else { return Ok(()) };
    let site = origin.to_str().ok().and_then(|origin| origin.split_once("://")).map(|(_, site)| site);
    if site.is_some_and(is_local_name) {
        return Ok(());
    }
    Err(ApiError::new(StatusCode::FORBIDDEN, "origin", "request comes from a web page of another site: not allowed"))
}

/// `localhost` or an IP address, with or without a port.
fn is_local_name(authority: &str) -> bool {
    let is_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if is_port(port) => host,
        _ => authority,
    };
    if host.eq_ignore_ascii_case("localhost") || host.parse::<std::net::Ipv4Addr>().is_ok() {
        return true;
    }
    let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    inner.is_some_and(|inner| inner.parse::<std::net::Ipv6Addr>().is_ok())
}

struct OnDrop<F: Fn()>(F);

impl<F: Fn()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// No such route.
pub(super) async fn unknown_route(request: Request) -> ApiError {
    let path: String = request.uri().path().chars().take(200).collect();
    ApiError::not_found("route", format!("no route `{path}` here: routes are under /v1, see the documentation"))
}

/// The route has no such method.
pub(super) async fn unknown_method(request: Request) -> ApiError {
    let message = format!("method {} is not for this route", request.method());
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "method", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_and_localhost_are_us() {
        for host in ["localhost", "localhost:7700", "127.0.0.1:7700", "192.168.1.4", "[::1]:7700", "[::1]", "LOCALHOST"]
        {
            assert!(is_local_name(host), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "evil.example:7700",
            "127.0.0.1.evil.example",
            "localhost.evil.example:1",
            "[evil]",
            "::1",
        ] {
            assert!(!is_local_name(host), "{host}");
        }
    }

    #[test]
    fn pages_of_other_sites_are_refused_by_name_and_by_origin() {
        let headers = |host: &'static str, origin: Option<&'static str>| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, host.parse().unwrap());
            if let Some(origin) = origin {
                headers.insert(header::ORIGIN, origin.parse().unwrap());
            }
            check_host(&headers, None).map_err(|error| error.word)
        };
        assert_eq!(headers("127.0.0.1:7700", None), Ok(()));
        assert_eq!(headers("127.0.0.1:7700", Some("http://localhost:7700")), Ok(()));
        assert_eq!(headers("evil.example", None), Err("host"));
        assert_eq!(headers("127.0.0.1:7700", Some("https://evil.example")), Err("origin"));
        assert_eq!(headers("127.0.0.1:7700", Some("null")), Err("origin"));
        assert_eq!(check_host(&HeaderMap::new(), None).map_err(|error| error.word), Err("host"));
    }
}
