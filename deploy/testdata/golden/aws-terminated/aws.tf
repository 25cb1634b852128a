# An application load balancer of AWS in front of a Portcullis cluster.
# TLS ends here; the nodes learn the client's address from X-Forwarded-For.
#
# What the nodes have to have in portcullis.yaml (the balancer's connections come
# from the subnets it stands in):
#   listen:
#     terminated: 4443
#     terminated_tls: true
#     drain: 60
#   trusted_proxies:
#     networks: [10.0.0.5, 10.0.1.0/28]
#
# Health checks of AWS ask each 5 seconds at best, and what they find takes a while to
# reach every part of the balancer: hence the long drain.

terraform {
  required_version = ">= 1.5"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.80"
    }
  }
}

variable "vpc_id" {
  description = "The VPC of the nodes."
  type        = string
}

variable "subnet_ids" {
  description = "Subnets that the balancer stands in, in at least two availability zones."
  type        = list(string)
}

variable "certificate_arn" {
  description = "Certificate of AWS Certificate Manager for id.example.com and *.id.example.com."
  type        = string
}

locals {
  nodes = {
    node1 = "10.0.0.11"
    node2 = "10.0.0.12"
    node3 = "10.0.0.13"
  }
}

resource "aws_security_group" "portcullis_lb" {
  name        = "portcullis-lb"
  description = "Who may reach the load balancer of Portcullis"
  vpc_id      = var.vpc_id
}

resource "aws_vpc_security_group_ingress_rule" "portcullis_lb" {
  for_each          = toset(["80", "443"])
  security_group_id = aws_security_group.portcullis_lb.id
  description       = "Logins and APIs"
  cidr_ipv4         = "0.0.0.0/0"
  ip_protocol       = "tcp"
  from_port         = tonumber(each.value)
  to_port           = tonumber(each.value)
}

resource "aws_vpc_security_group_egress_rule" "nodes" {
  for_each          = local.nodes
  security_group_id = aws_security_group.portcullis_lb.id
  description       = "The node ${each.key}"
  cidr_ipv4         = "${each.value}/32"
  ip_protocol       = "tcp"
  from_port         = 4443
  to_port           = 4443
}

resource "aws_lb" "portcullis" {
  name               = "portcullis"
  load_balancer_type = "application"
  subnets            = var.subnet_ids
  security_groups    = [aws_security_group.portcullis_lb.id]

  # The tenant is found by the Host header, and the client's address is added at the end
  # of X-Forwarded-For, where the nodes read.
  preserve_host_header       = true
  xff_header_processing_mode = "append"
  drop_invalid_header_fields = true
  desync_mitigation_mode     = "strictest"
  idle_timeout               = 120
}

resource "aws_lb_target_group" "nodes" {
  name        = "portcullis"
  vpc_id      = var.vpc_id
  target_type = "ip"
  protocol    = "HTTPS"
  port        = 4443
  # A node that is slow, or busy with passwords, gets no more than it answers.
  load_balancing_algorithm_type = "least_outstanding_requests"
  # What runs on a node that leaves may end.
  deregistration_delay = 120

  health_check {
    protocol            = "HTTPS"
    path                = "/testall"
    matcher             = "200"
    interval            = 5
    timeout             = 3
    healthy_threshold   = 2
    unhealthy_threshold = 2
  }
}

resource "aws_lb_target_group_attachment" "nodes" {
  for_each         = local.nodes
  target_group_arn = aws_lb_target_group.nodes.arn
  target_id        = each.value
  port             = 4443
}

resource "aws_lb_listener" "https" {
  load_balancer_arn = aws_lb.portcullis.arn
  protocol          = "HTTPS"
  port              = 443
  ssl_policy        = "ELBSecurityPolicy-TLS13-1-2-2021-06"
  certificate_arn   = var.certificate_arn

  default_action {
    type             = "forward"
    target_group_arn = aws_lb_target_group.nodes.arn
  }
}

# The nodes send pages on to HTTPS, and tell programs to use it.
resource "aws_lb_listener" "http" {
  load_balancer_arn = aws_lb.portcullis.arn
  protocol          = "HTTP"
  port              = 80

  default_action {
    type             = "forward"
    target_group_arn = aws_lb_target_group.nodes.arn
  }
}

output "address" {
  description = "Point the DNS names id.example.com and *.id.example.com here."
  value       = aws_lb.portcullis.dns_name
}
