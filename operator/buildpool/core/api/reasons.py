"""The words of conditions and Events: each a CamelCase constant with its meaning in one sentence.

Pure vocabulary. ``docs/reference/reasons.md`` is generated from it, so the meanings speak to users.
Scripts and alerts match on these words: rename one only with a note in the changelog.
"""

from __future__ import annotations

from buildpool.core.words import Word


class ConditionType(Word):
    """What a condition of a pool speaks about."""

    ACCEPTED = "Accepted", "The spec is valid and is being carried out."
    READY = (
        "Ready",
        "As many builders take builds as the pool always has, or more, and clients reach them.",
    )
    PROGRESSING = "Progressing", "Builders are being added, removed or replaced."
    UP_TO_DATE = (
        "UpToDate",
        "All builders that take builds run what the spec and this version of the operator want.",
    )
    CERTIFICATES_READY = (
        "CertificatesReady",
        "Every client and every builder has a valid certificate.",
    )
    CACHE_READY = (
        "CacheReady",
        "The shared cache can be read and written; absent where the pool has none.",
    )
    RECONCILING = (
        "Reconciling",
        "The spec is being carried out, and it is not only the load that changes the pool.",
    )
    STALLED = (
        "Stalled",
        "The spec will not be carried out unless somebody does something.",
    )


class Reason(Word):
    """Why a condition has its status."""

    ACCEPTED = "Accepted", "The spec is valid."
    INVALID_SPEC = (
        "InvalidSpec",
        "The spec cannot be carried out; the message names fields and remedies; the pool stays.",
    )

    READY = "Ready", "As many builders take builds as the pool always has, or more."
    BUILDERS_STARTING = "BuildersStarting", "Builders have been created and are not ready yet."
    IMAGE_PULL_FAILED = "ImagePullFailed", "A node cannot pull the image of a builder."
    UNSCHEDULABLE = "Unschedulable", "No node has room for a builder or fits its constraints."
    BUILDER_CRASHING = "BuilderCrashing", "The daemon of a builder ends again and again."
    SECRET_NOT_FOUND = (
        "SecretNotFound",
        "A Secret that the spec names does not exist or lacks the key.",
    )
    CONFIG_MAP_NOT_FOUND = (
        "ConfigMapNotFound",
        "A ConfigMap that the spec names does not exist or lacks the key.",
    )
    POD_REFUSED = (
        "PodRefused",
        "Pod Security, a quota or a policy refuses a builder's pods, or what keeps them safe.",
    )
    OBJECT_REFUSED = "ObjectRefused", "The cluster refuses an object of the pool."
    OBJECT_FAILED = (
        "ObjectFailed",
        "The API server could not store an object of the pool, such as when a webhook is down.",
    )
    FORBIDDEN = (
        "Forbidden",
        "The operator lacks a right to read what belongs to the pool; the message names it.",
    )
    NAME_CONFLICT = (
        "NameConflict",
        "An object with a name that the pool needs exists and belongs to somebody else.",
    )
    ASLEEP = "Asleep", "No builder runs; the next build wakes the pool."
    GATEWAY_MISSING = (
        "GatewayMissing",
        "The pool wants `Gateway` routing, and no gateway is installed.",
    )
    GATEWAY_NOT_READY = "GatewayNotReady", "No pod of the gateway is ready."
    GATEWAY_LOADING = (
        "GatewayLoading",
        "No pod of the gateway serves the pool as it is now, yet; it takes about a second.",
    )
    HOSTNAME_TAKEN = (
        "HostnameTaken",
        "One of `gateway.hostnames` is a name of another pool, and leads there.",
    )
    SCALED_TO_ZERO = "ScaledToZero", "The pool is to have no builders, so no build can run."
    TERMINATING = "Terminating", "The pool is being deleted; running builds finish first."

    ROLLING_OUT = "RollingOut", "Builders are being replaced, one after the other."
    SCALING = "Scaling", "Builders are being added or removed."
    DRAINING = (
        "Draining",
        "All wanted builders are there; others finish their builds before they are removed.",
    )
    WAITING_FOR_TURN = (
        "WaitingForTurn",
        "An upgrade of the operator changes what builders run; other pools replace theirs first.",
    )
    SETTLED = "Settled", "The pool is as its spec wants it."

    ISSUED = "Issued", "Every certificate has been issued and is not due yet."
    CERTIFICATE_FAILED = "CertificateFailed", "A certificate could not be issued or stored."

    CACHE_ANSWERS = "CacheAnswers", "The cache registry can be read and written."
    CACHE_UNKNOWN = "CacheUnknown", "The cache registry has not been asked yet."
    CACHE_STARTING = "CacheStarting", "The managed cache registry is starting."
    CACHE_CRASHING = (
        "CacheCrashing",
        "The managed cache registry or its keeper ends again and again.",
    )
    CACHE_RESTING = (
        "CacheResting",
        "The managed cache registry is off while the pool has no builders; its content stays.",
    )
    CACHE_FULL = (
        "CacheFull",
        "The managed cache is full, and nothing may be removed; builds continue without it.",
    )
    CACHE_DAMAGED = (
        "CacheDamaged",
        "Damaged content was found and removed; the next export writes it again.",
    )
    REGISTRY_NOT_FOUND = "RegistryNotFound", "The host name of the cache registry is not known."
    REGISTRY_UNREACHABLE = (
        "RegistryUnreachable",
        "The address of the cache registry does not answer, or not in time.",
    )
    REGISTRY_NOT_TRUSTED = (
        "RegistryNotTrusted",
        "The certificate of the cache registry cannot be checked, or is not for its name.",
    )
    CREDENTIALS_REFUSED = (
        "CredentialsRefused",
        "The cache registry asks for credentials and refuses those that there are.",
    )
    WRITE_REFUSED = (
        "WriteRefused",
        "The cache registry can be read, but the repository cannot be written.",
    )
    NO_REGISTRY = "NoRegistry", "What answers at that address is not an OCI registry."


class SizeReason(Word):
    """Why a pool has the size it has."""

    REPLICAS_SET = "ReplicasSet", "`spec.replicas` says so, and `spec.scaling` rests."
    AT_MINIMUM = "AtMinimum", "The builds that run need no more than `scaling.min`."
    FOLLOWS_LOAD = "FollowsLoad", "So many builders have room for the builds that run."
    AT_MAXIMUM = "AtMaximum", "The builds that run need more, but `scaling.max` is reached."
    KEPT_WARM = "KeptWarm", "The annotation `buildpool.dev/warm` asks for so many, for a while."
    COOLING_DOWN = (
        "CoolingDown",
        "Fewer builders would be enough now, but not yet for as long as `scaling.idleAfter`.",
    )


class RetireReason(Word):
    """Why a builder takes no more builds and is to go."""

    SURPLUS = "Surplus", "The pool needs fewer builders."
    OUTDATED = "Outdated", "What it runs is not what the spec wants any more."
    TOO_OLD = "TooOld", "It is older than `builders.recycle.maxAge`."
    TOO_MANY_BUILDS = "TooManyBuilds", "It has served `builders.recycle.maxBuilds` builds."
    TOO_MUCH_MEMORY = "TooMuchMemory", "Its pod takes more than `builders.recycle.maxMemory`."


class EventReason(Word):
    """What an Event tells that was done. The change of a condition is told with its ``Reason``."""

    CREATED_BUILDER = "CreatedBuilder", "A builder was created."
    SCALED_UP = "ScaledUp", "The pool is to have more builders."
    SCALED_DOWN = "ScaledDown", "The pool is to have fewer builders; idle ones are removed."
    RETIRED_BUILDER = (
        "RetiredBuilder",
        "A builder takes no more builds, finishes those that run, and is then removed.",
    )
    RESTORED_BUILDER = "RestoredBuilder", "A retired builder takes builds again."
    REMOVED_BUILDER = (
        "RemovedBuilder",
        "A builder was removed: no build ran on it, or its builds were overdue and long reported.",
    )
    BUILD_OVERDUE = (
        "BuildOverdue",
        "A build runs for longer than `builders.maxBuildDuration`; the message says what follows.",
    )
    BUILDS_LOST = (
        "BuildsLost",
        "A builder ended while builds ran on it; the message names them and the cause.",
    )
    QUEUE_BLOCKED = (
        "QueueBlocked",
        "Builds are waiting, and none has got a slot for minutes; the message says why.",
    )
    ROTATING_AUTHORITY = (
        "RotatingAuthority",
        "The pool gets another authority, in phases; clients have to read their Secrets again.",
    )
    UNKNOWN_ROTATION = (
        "UnknownRotation",
        "The annotation `buildpool.dev/rotate` asks for something that does not exist.",
    )
    UNKNOWN_WARMTH = (
        "UnknownWarmth",
        "The annotation `buildpool.dev/warm` asks for what cannot be read, or cannot be done.",
    )
    UNKNOWN_CANCELLATION = (
        "UnknownCancellation",
        "The annotation `buildpool.dev/cancel` asks for what cannot be read, or cannot be done.",
    )
    CREATED_CACHE = "CreatedCache", "The managed cache registry was created."
    REMOVED_CACHE = "RemovedCache", "The managed cache registry was removed, with its content."
    ISSUED_CERTIFICATE = "IssuedCertificate", "A certificate was issued where there was none."
    RENEWED_CERTIFICATE = "RenewedCertificate", "A certificate was replaced by a new one."
    REMOVED_CLIENT = (
        "RemovedClient",
        "A client's Secret was deleted; a copy of its certificate is good until it expires.",
    )
    OVERRULED = (
        "Overruled",
        "The cluster itself changes an object of the pool as it stores it; the object is left so.",
    )
    STATUS_REFUSED = (
        "StatusRefused",
        "The cluster refuses to store the pool's status, so the status is out of date.",
    )
    REPAIRED_DRIFT = (
        "RepairedDrift",
        "An object of the pool had been changed by somebody else and was put right.",
    )
