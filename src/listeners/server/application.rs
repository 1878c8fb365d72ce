//! A worker's actix-web application, as a service of a listener.

use std::fmt;

use actix_http::{Request, Response};
use actix_service::{IntoServiceFactory as _, Service, ServiceFactory, ServiceFactoryExt as _, map_config};
use actix_web::App;
use actix_web::body::BoxBody;
use actix_web::dev::AppConfig;
use actix_web::web::ServiceConfig;

/// An application that `configure` adds its paths to.
pub fn application(
    configure: impl FnOnce(&mut ServiceConfig),
) -> impl ServiceFactory<
    Request,
    Config = (),
    Response: Into<Response<BoxBody>>,
    Error: Into<Response<BoxBody>>,
    InitError: fmt::Debug,
    Service: Service<Request, Future: 'static> + 'static,
    Future: 'static,
> + 'static {
    let application = App::new().configure(configure).into_factory();
    // Nothing asks it for its own address: links are made of `server.public_url`.
    map_config(application, |()| AppConfig::default())
        .map_err(|error: actix_web::Error| error.error_response())
}
