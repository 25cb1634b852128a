# A network load balancer of AWS in front of a Portcullis cluster.
# TLS passes through to the nodes; the PROXY protocol tells them the client's address.
#
# What the nodes have to have in portcullis.yaml (the balancer's connections come
# from the subnets it stands in):
#   listen:
#     https: 443
#     http: 80
#     proxy_protocol: require
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

resource "aws_vpc_security_group_egress_rule" "nodes_https" {
  for_each          = local.nodes
  security_group_id = aws_security_group.portcullis_lb.id
  description       = "The node ${each.key}"
  cidr_ipv4         = "${each.value}/32"
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
}

resource "aws_vpc_security_group_egress_rule" "nodes_http" {
  for_each          = local.nodes
  security_group_id = aws_security_group.portcullis_lb.id
  description       = "The node ${each.key}"
  cidr_ipv4         = "${each.value}/32"
  ip_protocol       = "tcp"
  from_port         = 80
  to_port           = 80
}

resource "aws_lb" "portcullis" {
  name               = "portcullis"
  load_balancer_type = "network"
  subnets            = var.subnet_ids
  security_groups    = [aws_security_group.portcullis_lb.id]

  enable_cross_zone_load_balancing = true
}

resource "aws_lb_target_group" "nodes_https" {
  name              = "portcullis-https"
  vpc_id            = var.vpc_id
  target_type       = "ip"
  protocol          = "TCP"
  port              = 443
  proxy_protocol_v2 = true
  # The PROXY header carries the client's address, and the nodes know the balancer by its own.
  preserve_client_ip = "false"
  # What runs on a node that leaves may end.
  deregistration_delay   = 120
  connection_termination = false

  # So may what runs on a node that is not ready, as one that stops is.
  target_health_state {
    enable_unhealthy_connection_termination = false
    unhealthy_draining_interval             = 120
  }

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

resource "aws_lb_target_group_attachment" "nodes_https" {
  for_each         = local.nodes
  target_group_arn = aws_lb_target_group.nodes_https.arn
  target_id        = each.value
  port             = 443
}

resource "aws_lb_listener" "nodes_https" {
  load_balancer_arn = aws_lb.portcullis.arn
  protocol          = "TCP"
  port              = 443

  default_action {
    type             = "forward"
    target_group_arn = aws_lb_target_group.nodes_https.arn
  }
}

resource "aws_lb_target_group" "nodes_http" {
  name              = "portcullis-http"
  vpc_id            = var.vpc_id
  target_type       = "ip"
  protocol          = "TCP"
  port              = 80
  proxy_protocol_v2 = true
  # The PROXY header carries the client's address, and the nodes know the balancer by its own.
  preserve_client_ip = "false"
  # What runs on a node that leaves may end.
  deregistration_delay   = 120
  connection_termination = false

  # So may what runs on a node that is not ready, as one that stops is.
  target_health_state {
    enable_unhealthy_connection_termination = false
    unhealthy_draining_interval             = 120
  }

  health_check {
    protocol            = "HTTP"
    path                = "/testall"
    matcher             = "200"
    interval            = 5
    timeout             = 3
    healthy_threshold   = 2
    unhealthy_threshold = 2
  }
}

resource "aws_lb_target_group_attachment" "nodes_http" {
  for_each         = local.nodes
  target_group_arn = aws_lb_target_group.nodes_http.arn
  target_id        = each.value
  port             = 80
}

resource "aws_lb_listener" "nodes_http" {
  load_balancer_arn = aws_lb.portcullis.arn
  protocol          = "TCP"
  port              = 80

  default_action {
    type             = "forward"
    target_group_arn = aws_lb_target_group.nodes_http.arn
  }
}

output "address" {
  description = "Point the DNS names id.example.com and *.id.example.com here."
  value       = aws_lb.portcullis.dns_name
}
