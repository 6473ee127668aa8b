"""Every operation of both services against botocore: it writes and we read; we write and it reads.

CONFORMANCE_EXAMPLES sets how many examples each operation gets; more than the default are also random.
"""

import os
from urllib.parse import urlsplit

import pytest
from botocore.awsrequest import prepare_request_dict
from botocore.model import OperationModel, ServiceModel
from botocore.parsers import create_parser
from botocore.serialize import create_serializer
from botocore.session import get_session
from botocore.validate import ParamValidator
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conformance.strategies import valid
from whiteroom.wire import codec
from whiteroom.wire.errors import ApiError
from whiteroom.wire.routes import Routes
from whiteroom.wire.spec import SERVICES, Operation, operations

FEW = 4
EXAMPLES = int(os.environ.get("CONFORMANCE_EXAMPLES", FEW))
MODELS = {service: ServiceModel(get_session().get_service_data(service), service) for service in SERVICES}
ROUTES = Routes(operations().values())
SERIALIZER = create_serializer("rest-json", include_validation=False)
PARSER = create_parser("rest-json")

each_operation = pytest.mark.parametrize("operation", operations().values(), ids=lambda o: f"{o.service}.{o.name}")
some_examples = settings(
    max_examples=EXAMPLES,
    derandomize=EXAMPLES <= FEW,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


def botocores(operation: Operation) -> OperationModel:
    return MODELS[operation.service].operation_model(operation.name)


def test_all_operations_of_both_services_are_covered():
    assert len(operations()) == 162
    assert all(len(MODELS[s].operation_names) == sum(o.service == s for o in operations().values()) for s in SERVICES)


@each_operation
def test_what_botocore_sends_is_what_we_read(operation):
    model = botocores(operation)

    @some_examples
    @given(valid(model.input_shape))
    def check(members):
        assert not ParamValidator().validate(members, model.input_shape).has_errors()
        request = SERIALIZER.serialize_to_request(members, model)
        prepare_request_dict(request, endpoint_url="http://localhost:8080")
        url = urlsplit(request["url"])
        found, labels = ROUTES.match(request["method"], url.path, operation.signing_name)
        assert found is operation
        assert codec.parse(found, labels, url.query, request["body"] or b"") == members

    check()


@each_operation
def test_what_we_answer_is_what_botocore_reads(operation):
    shape = botocores(operation).output_shape

    @some_examples
    @given(valid(shape) if shape else st.none())
    def check(members):
        body = codec.dump(operation, members)
        assert (body == b"") == (operation.status == 204)
        response = {"status_code": operation.status, "headers": {}, "body": body}
        parsed = PARSER.parse(response, shape)
        del parsed["ResponseMetadata"]
        assert parsed == (members or {})

    check()


ERRORS = [(s, error) for s in SERVICES for error in operations()[s, "TagResource"].errors.by_name.values()]


@pytest.mark.parametrize(("service", "error"), ERRORS, ids=lambda value: getattr(value, "name", value))
def test_every_modelled_error_is_read_by_botocore(service, error):
    shape = MODELS[service].shape_for(error.name)

    @some_examples
    @given(valid(shape))
    def check(members):
        raised = ApiError(error.name, members.get("message", "a sentence"))
        raised.members.update(members)
        headers = {"x-amzn-errortype": error.name}
        response = {"status_code": error.status, "headers": headers, "body": codec.dump_error(error, raised)}
        generic = PARSER.parse(response, None)["Error"]
        assert generic == {"Code": error.name, "Message": raised.message}
        assert PARSER.parse(response, shape) == {"message": raised.message, **members}

    check()
