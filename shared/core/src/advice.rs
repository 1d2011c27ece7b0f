//! What to do about a submission that waits, was refused or failed: one sentence for each thing that ECS, a container or
//! the bridge may say.
//!
//! The texts that are looked for are those of the ECS Developer Guide (*Amazon ECS stopped tasks error messages*, *Amazon
//! ECS API failure reasons*), of the errors of RunTask in the ECS API Reference, and of the bridge. They are for people:
//! nothing is decided by them. `docs/troubleshooting.md` and the Python client's `advice.json` are written from [`ADVICE`].

use crate::{
    record::{Hint, Record},
    state::State,
};

/// What an entry is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Matcher {
    /// All of these words are in the reasons of the record, in any case.
    Contains(&'static [&'static str]),
    /// A reason of the record begins with this word, in any case.
    StartsWith(&'static str),
    /// The record has this hint.
    Hint(Hint),
    /// The container exited with this code.
    ExitCode(i32),
    /// The task has this stop code.
    StopCode(&'static str),
    /// The submission ended in this state.
    State(State),
}

/// One thing that may be wrong.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// When it is.
    pub when: Matcher,
    /// What to do about it.
    pub advice: &'static str,
}

/// A section of the table.
#[derive(Clone, Copy, Debug)]
pub struct Section {
    /// Its heading.
    pub title: &'static str,
    /// Its entries; the first that fits is the one.
    pub entries: &'static [Entry],
}

const fn says(words: &'static [&'static str], advice: &'static str) -> Entry {
    Entry { when: Matcher::Contains(words), advice }
}

const fn begins(word: &'static str, advice: &'static str) -> Entry {
    Entry { when: Matcher::StartsWith(word), advice }
}

const fn exited(code: i32, advice: &'static str) -> Entry {
    Entry { when: Matcher::ExitCode(code), advice }
}

const fn stop_code(code: &'static str, advice: &'static str) -> Entry {
    Entry { when: Matcher::StopCode(code), advice }
}

const fn ended(state: State, advice: &'static str) -> Entry {
    Entry { when: Matcher::State(state), advice }
}

/// Everything that has advice, the more specific first.
pub const ADVICE: &[Section] = &[
    Section {
        title: "The image cannot be pulled",
        entries: &[
            says(
                &["cannotpull", "manifest unknown"],
                "The image's tag does not exist. Push it, or correct `image` in the task definition.",
            ),
            says(
                &["cannotpull", "does not contain descriptor matching platform"],
                "The image is not built for the task's CPU architecture. Build it for that, or set `runtimePlatform` in the task definition.",
            ),
            says(
                &["cannotpull", "no match for platform"],
                "The image is not built for the task's CPU architecture. Build it for that, or set `runtimePlatform` in the task definition.",
            ),
            says(
                &["cannotpull", "toomanyrequests"],
                "The registry limits how often images are pulled. Use an ECR pull-through cache, or give credentials of a Docker Hub account in `repositoryCredentials`.",
            ),
            says(
                &["cannotpull", "pull rate limit"],
                "The registry limits how often images are pulled. Use an ECR pull-through cache, or give credentials of a Docker Hub account in `repositoryCredentials`.",
            ),
            says(
                &["cannotpull", "no space left on device"],
                "The image does not fit onto the task's disk. Set `ephemeralStorage` (Fargate), or free space on the container instances.",
            ),
            says(
                &["cannotpull", "403 forbidden"],
                "The registry denies access. The execution role needs `ecr:GetAuthorizationToken`, `ecr:BatchGetImage` and `ecr:GetDownloadUrlForLayer`, and the repository's policy must allow it.",
            ),
            says(
                &["cannotpull", "access denied"],
                "The registry denies access, or the repository does not exist. Check the image's name, the execution role's ECR permissions and the repository's policy.",
            ),
            says(
                &["cannotpull", "no basic auth credentials"],
                "The registry asks for credentials. Set the execution role for ECR, or `repositoryCredentials` for another registry.",
            ),
            says(
                &["cannotpull", "timeout"],
                "The registry cannot be reached from the task's subnets. They need a NAT gateway, a public IP address (`assignPublicIp`), or VPC endpoints for ECR (api and dkr) and S3; the security group must let HTTPS out.",
            ),
            says(
                &["cannotpull", "context canceled"],
                "The pull was cancelled, mostly as the network to the registry was too slow. Check the route to it; a smaller image helps.",
            ),
            says(
                &["cannotpull", "not found"],
                "The image does not exist. Check its repository, tag and region in the task definition.",
            ),
            says(
                &["cannotpull"],
                "ECS cannot pull the image. Check its name, the execution role's permissions, and the way from the task's subnets to the registry.",
            ),
        ],
    },
    Section {
        title: "The task cannot be set up",
        entries: &[
            says(
                &["unable to pull secrets", "accessdenied"],
                "The execution role may not read a secret. It needs `secretsmanager:GetSecretValue` or `ssm:GetParameters` for the `secrets` of the task definition, and `kms:Decrypt` for their key.",
            ),
            says(
                &["unable to pull secrets", "resourcenotfound"],
                "A secret of the task definition does not exist in this region. Correct its ARN in `secrets`.",
            ),
            says(
                &["unable to pull secrets"],
                "ECS cannot read the task's secrets or sign in to the registry. The task's subnets need a way to Secrets Manager, Systems Manager and ECR: a NAT gateway, a public IP address, or VPC endpoints; the execution role needs the permissions.",
            ),
            says(
                &["failed to validate logger args"],
                "The log group does not exist, or cannot be reached. Create the `awslogs-group` of the task definition (or set `awslogs-create-group`), allow `logs:CreateLogStream` and `logs:PutLogEvents`, and give the subnets a way to CloudWatch Logs.",
            ),
            says(
                &["failed to initialize logging driver"],
                "The log driver does not start. Check `logConfiguration` in the task definition: log group, region, and the execution role's permissions on it.",
            ),
            says(
                &["failed to invoke efs utils"],
                "The EFS file system cannot be mounted. It needs a mount target in the task's subnet, a security group that lets NFS (port 2049) in, and a task role that may mount where IAM authorisation is on.",
            ),
            says(
                &["failed to download env files"],
                "An environment file cannot be read. The execution role needs `s3:GetObject` on it and `s3:GetBucketLocation`; the subnets need a way to S3.",
            ),
            says(
                &["free addresses"],
                "The subnet has no free addresses left. Give the profile larger subnets, or more of them.",
            ),
            says(
                &["insufficientfreeaddresses"],
                "The subnet has no free addresses left. Give the profile larger subnets, or more of them.",
            ),
            says(
                &["create network interface"],
                "ECS cannot create the task's network interface. Check that the subnets exist and have free addresses, and that the account's quota of network interfaces is not used up.",
            ),
            says(
                &["timeout waiting for network interface"],
                "The task's network interface was not ready in time. Mostly this passes; if it stays, check the subnets' free addresses.",
            ),
            says(
                &["preparing network interface"],
                "EC2 throttled the creation of network interfaces. The bridge starts another attempt; if this stays, lower the stack's `LaunchRate`.",
            ),
            says(
                &["ephemeralstorage"],
                "The task's ephemeral storage was not ready in time. Usually this passes with the next attempt; if it stays, ask AWS Support.",
            ),
            says(
                &["fetching secret data"],
                "ECS cannot read a secret of the task definition. Check its ARN in `secrets`, the execution role's `secretsmanager:GetSecretValue`, `ssm:GetParameters` and `kms:Decrypt`, and the way from the task's subnets to these services.",
            ),
            says(
                &["resourceinitializationerror"],
                "ECS cannot set the task up. Its own words say what failed; most often the subnets have no way to the service that is named, or the execution role lacks a permission.",
            ),
            says(
                &["cannotcreatevolumeerror"],
                "A volume of the task cannot be created or mounted. Check `volumes` in the task definition, and the file system's policy and security group.",
            ),
        ],
    },
    Section {
        title: "The container cannot be started",
        entries: &[
            says(
                &["cannotstartcontainer", "exec format error"],
                "The program is built for another CPU architecture. Build the image for that of the task, or set `runtimePlatform`.",
            ),
            says(
                &["cannotstartcontainer", "permission denied"],
                "The container's user may not execute the program. Set its execute permission in the image.",
            ),
            says(
                &["cannotstartcontainer", "executable file not found"],
                "The image has no program of this name. Check the command, and `PATH` in the image.",
            ),
            says(
                &["cannotstartcontainer", "no such file or directory"],
                "The image has no such program, or lacks the interpreter that the program names. Check the command and the image.",
            ),
            says(
                &["cannotstartcontainer"],
                "The container runtime does not start the container. Its own words say why; check the command, the image's entry point, and the memory of the container.",
            ),
            says(
                &["cannotcreatecontainer"],
                "The container runtime cannot create the container. Check its `mountPoints`, `linuxParameters` and `ulimits` in the task definition.",
            ),
            says(
                &["containerruntimetimeout"],
                "The container runtime did not answer in time. On EC2 the host may be overloaded; else a retry helps.",
            ),
            says(
                &["dockertimeout"],
                "The container runtime did not answer in time. On EC2 the host may be overloaded; else a retry helps.",
            ),
            says(
                &["cannotstopcontainer"],
                "The container runtime could not stop the container. On EC2 look at the host; on Fargate ECS ends it in time.",
            ),
            says(
                &["containerruntimeerror"],
                "The container runtime could not start the container. Its own words say why; a retry may help.",
            ),
            says(
                &["cannotinspectcontainer"],
                "The container runtime does not know how the container ended. A retry helps; on EC2 look at the host's agent and runtime.",
            ),
            begins("internalerror", "ECS had an error of its own. A retry helps; if it stays, ask AWS Support."),
            says(
                &["taskfailedtostart: internalerror"],
                "ECS had an error of its own. A retry helps; if it stays, ask AWS Support.",
            ),
        ],
    },
    Section {
        title: "ECS has no capacity",
        entries: &[
            says(
                &["capacity is unavailable"],
                "Fargate has no capacity for this now, which on Spot may last for hours. Give the profile `fallbacks`: on-demand capacity, or subnets in more availability zones.",
            ),
            says(
                &["resource:memory"],
                "No container instance has enough memory left. Let the cluster scale, ask for less memory, or give the profile `fallbacks`.",
            ),
            says(
                &["resource:cpu"],
                "No container instance has enough CPU left. Let the cluster scale, ask for less CPU, or give the profile `fallbacks`.",
            ),
            says(
                &["resource:eni"],
                "No container instance can take another network interface. Use larger instances or turn on `awsvpcTrunking`; on Fargate raise the quota of network interfaces.",
            ),
            says(
                &["resource:gpu"],
                "No container instance has a free GPU. Let the cluster scale, or give the profile `fallbacks`.",
            ),
            says(
                &["resource:ports"],
                "The host port is taken on every container instance. Use `awsvpc` networking, or dynamic host ports.",
            ),
            // Not anywhere in the words: IAM's messages end with "on resource: arn:aws:…".
            begins(
                "resource:",
                "No container instance has what the task asks for. Let the cluster scale, or give the profile `fallbacks`.",
            ),
            says(
                &["taskfailedtostart: resource:"],
                "No container instance has what the task asks for. Let the cluster scale, or give the profile `fallbacks`.",
            ),
            begins(
                "agent",
                "The agents of the container instances are not connected. Check that the instances run and reach ECS.",
            ),
            begins(
                "attribute",
                "No container instance has an attribute that the task definition needs, such as a log driver, an architecture or a network mode. Use instances that have it.",
            ),
            says(
                &["no container instances were found"],
                "The cluster has no container instances. Let its capacity provider scale out, or launch on Fargate.",
            ),
            says(
                &["limit on the number of tasks"],
                "The quota of tasks is used up. Raise it in Service Quotas, or run fewer at once.",
            ),
            says(
                &["limit on the number of vcpus"],
                "The quota of Fargate vCPUs is used up. Raise it in Service Quotas, or run fewer at once.",
            ),
            begins(
                "limitexceeded",
                "A quota of ECS is used up. Raise it in Service Quotas, or run fewer tasks at once.",
            ),
            says(
                &["ecs has no capacity"],
                "ECS has refused this profile for want of capacity. It is tried again every few seconds; give it `fallbacks` to go on elsewhere.",
            ),
        ],
    },
    Section {
        title: "RunTask is refused",
        entries: &[
            says(
                &["service linked role"],
                "The account has no service-linked role for ECS yet. It clears by itself within minutes; else run `aws iam create-service-linked-role --aws-service-name ecs.amazonaws.com`.",
            ),
            says(
                &["service-linked role"],
                "The account has no service-linked role for ECS yet. It clears by itself within minutes; else run `aws iam create-service-linked-role --aws-service-name ecs.amazonaws.com`.",
            ),
            says(
                &["infrastructure role"],
                "ECS cannot use the infrastructure role of the task's volumes. It must exist, trust `ecs.amazonaws.com`, and have the permissions of `AmazonECSInfrastructureRolePolicyForVolumes`.",
            ),
            says(
                &["unable to assume", "role"],
                "ECS cannot assume the task's role. It must exist, and trust `ecs-tasks.amazonaws.com`. The bridge tries again for an hour, because a new role takes minutes to be known everywhere.",
            ),
            says(
                &["accessdenied", "iam:passrole"],
                "The bridge may not pass the task's role to ECS. Name the role in the stack's parameter `PassRoleArns`.",
            ),
            says(
                &["accessdenied", "tagresource"],
                "The bridge may not tag what it launches on this cluster. Name the cluster in the stack's parameter `MoreClusterArns`.",
            ),
            says(
                &["accessdenied"],
                "The bridge's role lacks a permission that ECS names. Check the stack's parameters for clusters, task definitions and roles, and service control policies.",
            ),
            says(
                &["unauthorizedoperation"],
                "The bridge's role or ECS lacks a permission of EC2 that the message names. Check service control policies and the service-linked role of ECS.",
            ),
            says(
                &["requestlimitexceeded"],
                "EC2 or another service behind ECS throttled or failed. The bridge tries again; if this stays, lower the stack's `LaunchRate`, and see the AWS Health Dashboard.",
            ),
            says(
                &["request limit exceeded"],
                "EC2 or another service behind ECS throttled or failed. The bridge tries again; if this stays, lower the stack's `LaunchRate`, and see the AWS Health Dashboard.",
            ),
            says(
                &["rate exceeded"],
                "ECS throttles RunTask. It is tried again; if this stays, lower the stack's `LaunchRate`, or ask for a higher rate in Service Quotas.",
            ),
            says(
                &["throttl"],
                "ECS throttles RunTask. It is tried again; if this stays, lower the stack's `LaunchRate`, or ask for a higher rate in Service Quotas.",
            ),
            says(
                &["internal error has occurred"],
                "EC2 or another service behind ECS throttled or failed. The bridge tries again; if this stays, lower the stack's `LaunchRate`, and see the AWS Health Dashboard.",
            ),
            says(
                &["errorcode: internal"],
                "EC2 or another service behind ECS throttled or failed. The bridge tries again; if this stays, lower the stack's `LaunchRate`, and see the AWS Health Dashboard.",
            ),
            says(
                &["error code: internal"],
                "EC2 or another service behind ECS throttled or failed. The bridge tries again; if this stays, lower the stack's `LaunchRate`, and see the AWS Health Dashboard.",
            ),
            says(
                &["errorcode: unavailable"],
                "EC2 or another service behind ECS throttled or failed. The bridge tries again; if this stays, lower the stack's `LaunchRate`, and see the AWS Health Dashboard.",
            ),
            says(
                &["error code: unavailable"],
                "EC2 or another service behind ECS throttled or failed. The bridge tries again; if this stays, lower the stack's `LaunchRate`, and see the AWS Health Dashboard.",
            ),
            says(
                &["service is unavailable"],
                "EC2 or another service behind ECS throttled or failed. The bridge tries again; if this stays, lower the stack's `LaunchRate`, and see the AWS Health Dashboard.",
            ),
            says(
                &["serviceunavailable"],
                "EC2 or another service behind ECS throttled or failed. The bridge tries again; if this stays, lower the stack's `LaunchRate`, and see the AWS Health Dashboard.",
            ),
            says(
                &["requesttimeout"],
                "EC2 or another service behind ECS throttled or failed. The bridge tries again; if this stays, lower the stack's `LaunchRate`, and see the AWS Health Dashboard.",
            ),
            says(
                &["status code: 5"],
                "EC2 or another service behind ECS throttled or failed. The bridge tries again; if this stays, lower the stack's `LaunchRate`, and see the AWS Health Dashboard.",
            ),
            says(
                &["signature expired"],
                "AWS refuses the signature because the clock of the caller is wrong. Set it by NTP.",
            ),
            says(
                &["signature not yet current"],
                "AWS refuses the signature because the clock of the caller is wrong. Set it by NTP.",
            ),
            says(
                &["requesttimetooskewed"],
                "AWS refuses the signature because the clock of the caller is wrong. Set it by NTP.",
            ),
            says(
                &["clusternotfound"],
                "The cluster does not exist in this account and region. Correct `cluster` in the profile, or create it.",
            ),
            says(
                &["taskdefinition not found"],
                "The task definition does not exist in this account and region. Register it, or correct `taskDefinition` in the profile.",
            ),
            says(
                &["unable to describe task definition"],
                "The task definition does not exist in this account and region. Register it, or correct `taskDefinition` in the profile.",
            ),
            says(
                &["taskdefinition is inactive"],
                "The task definition was deregistered. Name an active revision, or the family alone for the latest.",
            ),
            says(
                &["no fargate configuration exists"],
                "Fargate does not have this combination of CPU and memory. Take one of those that it has, such as 512 CPU units with 1024 to 4096 MiB.",
            ),
            says(
                &["subnet"],
                "ECS does not accept the subnets. Check that they exist in this region and in one VPC, and correct `networkConfiguration`.",
            ),
            says(
                &["security group"],
                "ECS does not accept the security groups. Check that they exist in the subnets' VPC, and correct `networkConfiguration`.",
            ),
            says(
                &["network configuration must be provided"],
                "A task definition with `awsvpc` networking needs `networkConfiguration` with subnets in the profile.",
            ),
            says(
                &["is not a container in the taskdefinition"],
                "The task definition has no container of this name. Correct `container_name` in the profile, or the container's name in the overrides.",
            ),
            says(
                &["platformunknown"],
                "This platform version does not exist. Leave `platformVersion` out, or set it to `LATEST`.",
            ),
            says(
                &["platformtaskdefinitionincompatibility"],
                "The task definition needs a newer platform version of Fargate. Leave `platformVersion` out, or set it to `LATEST`.",
            ),
            says(
                &["unsupportedfeature"],
                "ECS does not have this feature in this region or for this launch type. ECS's words name it.",
            ),
            says(&["blockedexception"], "AWS has blocked the account. Ask AWS Support."),
            says(
                &["no connection to ecs"],
                "The bridge cannot reach ECS. It tries again; if its functions are in a VPC, they need a NAT gateway or a VPC endpoint for ECS.",
            ),
            says(&["expiredtoken"], "The bridge's own credentials had expired. It tries again with new ones."),
            says(&["serverexception"], "ECS had an error of its own. The call is repeated."),
            says(
                &["serialization"],
                "ECS does not understand the request. A parameter has the wrong type: correct the profile or the overrides.",
            ),
            says(
                &["validationexception"],
                "ECS refuses a parameter. Its own words say which; correct it in the profile or the overrides.",
            ),
            says(
                &["clientexception"],
                "ECS refuses the request as it is. Its own words say what to change in the profile or the overrides.",
            ),
            says(
                &["invalidparameter"],
                "ECS refuses a parameter. Its own words say which; correct it in the profile or the overrides.",
            ),
        ],
    },
    Section {
        title: "The bridge",
        entries: &[
            says(
                &["the runners of its pool fail"],
                "The pool's containers fail to start, for the reason given. Launch the profile's task definition by hand, and check that its image has `ecs-bridge-runner`.",
            ),
            says(
                &["its runner reported no exit code"],
                "The container of the pool ended while it ran the command: it was stopped, lost its host, or ran out of memory. Let the caller retry.",
            ),
            says(
                &["launch_timeout"],
                "The task did not start in time and was stopped. Look at why it stayed in PROVISIONING or PENDING, or raise `launch_timeout`.",
            ),
            says(
                &["run_timeout"],
                "The command ran for too long and was stopped. Raise `run_timeout` in the profile, or make it quicker.",
            ),
        ],
    },
    Section {
        title: "The container's end",
        entries: &[
            Entry {
                when: Matcher::Hint(Hint::OutOfMemory),
                advice: "The container may have run out of memory. Give the task more: `overrides.memory` of the submission, or `memory` in the task definition; in Airflow also by try, with `by_try`.",
            },
            // Before the exit codes: they explain a container that was killed.
            says(
                &["maintenance", "infrastructure"],
                "AWS maintained the host and stopped the task. Let the caller retry.",
            ),
            says(&["taskretirement"], "AWS maintained the host and stopped the task. Let the caller retry."),
            stop_code(
                "SpotInterruption",
                "AWS took the Spot capacity back. Let the caller retry, relaunch it on other capacity with `relaunch_on`, or run it on demand.",
            ),
            stop_code(
                "TerminationNotice",
                "The instance was about to be terminated. Let the caller retry, or relaunch it with `relaunch_on`.",
            ),
            stop_code(
                "InfrastructureHealth",
                "The host failed. Let the caller retry, or relaunch it with `relaunch_on`.",
            ),
            stop_code(
                "ServiceSchedulerInitiated",
                "A service's scheduler stopped the task, though no service should own it. Look at who uses the cluster.",
            ),
            stop_code(
                "UserInitiated",
                "The task was stopped through StopTask, and not through the bridge. CloudTrail shows the caller.",
            ),
            exited(
                1,
                "The command failed. Read its output with `ecs-bridge logs`, or in the log group of the task definition.",
            ),
            exited(2, "The command was called in a wrong way, or failed. Read its output with `ecs-bridge logs`."),
            exited(125, "The container runtime could not run the command. Check the command and the image."),
            exited(
                126,
                "The command was found but cannot be executed. Set its execute permission, or check its architecture.",
            ),
            exited(127, "The image has no such command. Check its name, and `PATH` in the image."),
            exited(134, "The command aborted itself (SIGABRT). Read its output with `ecs-bridge logs`."),
            exited(
                137,
                "The container was killed (SIGKILL): by a stop that it did not heed within `stopTimeout`, or for want of memory.",
            ),
            exited(139, "The command crashed (SIGSEGV). Its output (`ecs-bridge logs`) or a core file shows where."),
            exited(143, "The container was asked to stop (SIGTERM) and did."),
            exited(200, "If it is a pool's runner, its configuration is wrong. Its log names the variable."),
            exited(
                201,
                "If it is a pool's runner, it found no AWS credentials. Set `taskRoleArn` in its task definition, and let the container reach 169.254.170.2 without a proxy.",
            ),
            exited(
                202,
                "If it is a pool's runner, the function refused it. Attach the stack's `RunnerPolicyArn` to its task role, and let `RunnerRoleArns` name that role. Its log says why.",
            ),
            exited(
                204,
                "If it is a pool's runner, the function did not answer for an hour. Check the runner's way to it, and the function's log.",
            ),
            stop_code("TaskFailedToStart", "The task could not be started. ECS's own words say why."),
        ],
    },
    Section {
        title: "The submission's end",
        entries: &[
            ended(
                State::Expired,
                "It could not be launched before its deadline. Look at what held it up: capacity, the launch rate, or an outage.",
            ),
            ended(
                State::Lost,
                "ECS no longer reports its task, which may have run. Check for the task in the cluster, and for its effects, before you run it again.",
            ),
            ended(
                State::Rejected,
                "ECS refused it for good. Its own words say why; correct the profile or the overrides, and submit it under another id.",
            ),
            ended(
                State::Failed,
                "The command did not succeed. Read its output with `ecs-bridge logs`, or in the log group of the task definition.",
            ),
        ],
    },
];

impl Matcher {
    fn fits_reasons(&self, reasons: &[String]) -> bool {
        match self {
            Self::Contains(words) => reasons.iter().any(|reason| words.iter().all(|word| reason.contains(word))),
            Self::StartsWith(word) => reasons.iter().any(|reason| reason.starts_with(word)),
            Self::Hint(_) | Self::ExitCode(_) | Self::StopCode(_) | Self::State(_) => false,
        }
    }
}

fn first(fits: impl Fn(&Matcher) -> bool) -> Option<&'static str> {
    let mut entries = ADVICE.iter().flat_map(|chapter| chapter.entries);
    entries.find(|entry| fits(&entry.when)).map(|entry| entry.advice)
}

/// What to do about a refusal of RunTask, by its code and message.
pub fn of_refusal(reason: &str) -> Option<&'static str> {
    let reasons = [reason.to_ascii_lowercase()];
    first(|when| when.fits_reasons(&reasons))
}

/// What to do about a submission, as it stands; nothing where all is well.
pub fn advice(record: &Record) -> Option<&'static str> {
    let reasons = [&record.reason, &record.stopped_reason].into_iter().flatten();
    let reasons: Vec<_> = reasons.map(|reason| reason.to_ascii_lowercase()).collect();
    let is_well = matches!(record.state, State::Succeeded | State::Cancelled);
    first(|when| match when {
        Matcher::Hint(hint) => record.hint == Some(*hint),
        _ if is_well => false,
        Matcher::Contains(_) | Matcher::StartsWith(_) => when.fits_reasons(&reasons),
        Matcher::ExitCode(code) => record.exit_code == Some(*code),
        Matcher::StopCode(code) => record.state.is_terminal() && record.stop_code.as_deref() == Some(code),
        Matcher::State(state) => record.state == *state,
    })
}
