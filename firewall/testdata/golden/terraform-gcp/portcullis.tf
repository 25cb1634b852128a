# The firewall of a Portcullis node: network contract, profile portcullis.
# Give every node the network tag portcullis-node. A rule of Google's has addresses of one family only.
# Everything that no row declares is dropped, in both directions: add rules of your own for what
# this host needs beside the appliance, such as time servers (NTP) and DHCP.
# Not allowed here:
#   row social: no address of accounts.example.net is known: --address accounts.example.net=ADDRESS says it, --resolve asks for it

variable "network" {
  type        = string
  description = "Name of the nodes' VPC network"
}

locals {
  nodes_v4      = ["10.0.0.11/32", "10.0.0.12/32", "10.0.0.13/32"]
  nodes_v6      = ["fd00::11/128", "fd00::12/128", "fd00::13/128"]
  lb_v4         = ["10.0.0.5/32"]
  lb_v6         = ["fd00::5/128"]
  cli_v4        = ["10.0.9.7/32"]
  depot_v4      = ["10.0.0.9/32"]
  depot_v6      = ["fd00::9/128"]
  jump_host_v4  = ["10.0.9.2/32"]
  monitoring_v4 = ["10.0.9.0/28"]
  monitoring_v6 = ["fd00:9::/64"]
  dns_v4        = ["10.0.0.53/32"]
  dns_v6        = ["fd00::53/128"]
  providers_v4  = ["192.0.2.10/32"]
  smtp_v4       = ["10.0.0.25/32"]
  traces_v4     = ["10.0.0.18/32"]
}

# row database
resource "google_compute_firewall" "database_in_tcp_v4" {
  name          = "portcullis-database-in-tcp-v4"
  network       = var.network
  description   = "row database"
  direction     = "INGRESS"
  priority      = 1000
  source_ranges = local.nodes_v4
  target_tags   = ["portcullis-node"]

  allow {
    protocol = "tcp"
    ports    = ["27017"]
  }
}

# row database
resource "google_compute_firewall" "database_in_tcp_v6" {
  name          = "portcullis-database-in-tcp-v6"
  network       = var.network
  description   = "row database"
  direction     = "INGRESS"
  priority      = 1000
  source_ranges = local.nodes_v6
  target_tags   = ["portcullis-node"]

  allow {
    protocol = "tcp"
    ports    = ["27017"]
  }
}

# row control
resource "google_compute_firewall" "control_in_tcp_v4" {
  name          = "portcullis-control-in-tcp-v4"
  network       = var.network
  description   = "row control"
  direction     = "INGRESS"
  priority      = 1000
  source_ranges = local.nodes_v4
  target_tags   = ["portcullis-node"]

  allow {
    protocol = "tcp"
    ports    = ["7777"]
  }
}

# row control
resource "google_compute_firewall" "control_in_tcp_v6" {
  name          = "portcullis-control-in-tcp-v6"
  network       = var.network
  description   = "row control"
  direction     = "INGRESS"
  priority      = 1000
  source_ranges = local.nodes_v6
  target_tags   = ["portcullis-node"]

  allow {
    protocol = "tcp"
    ports    = ["7777"]
  }
}

# row rate-limit
resource "google_compute_firewall" "rate_limit_in_tcp_v4" {
  name          = "portcullis-rate-limit-in-tcp-v4"
  network       = var.network
  description   = "row rate-limit"
  direction     = "INGRESS"
  priority      = 1000
  source_ranges = local.nodes_v4
  target_tags   = ["portcullis-node"]

  allow {
    protocol = "tcp"
    ports    = ["9001"]
  }
}

# row rate-limit
resource "google_compute_firewall" "rate_limit_in_tcp_v6" {
  name          = "portcullis-rate-limit-in-tcp-v6"
  network       = var.network
  description   = "row rate-limit"
  direction     = "INGRESS"
  priority      = 1000
  source_ranges = local.nodes_v6
  target_tags   = ["portcullis-node"]

  allow {
    protocol = "tcp"
    ports    = ["9001"]
  }
}

# row webtask-logs
resource "google_compute_firewall" "webtask_logs_in_tcp_v4" {
  name          = "portcullis-webtask-logs-in-tcp-v4"
  network       = var.network
  description   = "row webtask-logs"
  direction     = "INGRESS"
  priority      = 1000
  source_ranges = local.nodes_v4
  target_tags   = ["portcullis-node"]

  allow {
    protocol = "tcp"
    ports    = ["8721"]
  }
}

# row webtask-logs
resource "google_compute_firewall" "webtask_logs_in_tcp_v6" {
  name          = "portcullis-webtask-logs-in-tcp-v6"
  network       = var.network
  description   = "row webtask-logs"
  direction     = "INGRESS"
  priority      = 1000
  source_ranges = local.nodes_v6
  target_tags   = ["portcullis-node"]

  allow {
    protocol = "tcp"
    ports    = ["8721"]
  }
}

# row webtask-control
resource "google_compute_firewall" "webtask_control_in_tcp_v4" {
  name          = "portcullis-webtask-control-in-tcp-v4"
  network       = var.network
  description   = "row webtask-control"
  direction     = "INGRESS"
  priority      = 1000
  source_ranges = local.nodes_v4
  target_tags   = ["portcullis-node"]

  allow {
    protocol = "tcp"
    ports    = ["8701"]
  }
}

# row webtask-control
resource "google_compute_firewall" "webtask_control_in_tcp_v6" {
  name          = "portcullis-webtask-control-in-tcp-v6"
  network       = var.network
  description   = "row webtask-control"
  direction     = "INGRESS"
  priority      = 1000
  source_ranges = local.nodes_v6
  target_tags   = ["portcullis-node"]

  allow {
    protocol = "tcp"
    ports    = ["8701"]
  }
}

# row search-http
resource "google_compute_firewall" "search_http_in_tcp_v4" {
  name          = "portcullis-search-http-in-tcp-v4"
  network       = var.network
  description   = "row search-http"
  direction     = "INGRESS"
  priority      = 1000
  source_ranges = local.nodes_v4
  target_tags   = ["portcullis-node"]

  allow {
    protocol = "tcp"
    ports    = ["9200"]
  }
}

# row search-http
resource "google_compute_firewall" "search_http_in_tcp_v6" {
  name          = "portcullis-search-http-in-tcp-v6"
  network       = var.network
  description   = "row search-http"
  direction     = "INGRESS"
  priority      = 1000
  source_ranges = local.nodes_v6
  target_tags   = ["portcullis-node"]

  allow {
    protocol = "tcp"
    ports    = ["9200"]
  }
}

# row search-transport
resource "google_compute_firewall" "search_transport_in_tcp_v4" {
  name          = "portcullis-search-transport-in-tcp-v4"
  network       = var.network
  description   = "row search-transport"
  direction     = "INGRESS"
  priority      = 1000
  source_ranges = local.nodes_v4
  target_tags   = ["portcullis-node"]

  allow {
    protocol = "tcp"
    ports    = ["9300-9400"]
  }
}

# row search-transport
resource "google_compute_firewall" "search_transport_in_tcp_v6" {
  name          = "portcullis-search-transport-in-tcp-v6"
  network       = var.network
  description   = "row search-transport"
  direction     = "INGRESS"
  priority      = 1000
  source_ranges = local.nodes_v6
  target_tags   = ["portcullis-node"]

  allow {
    protocol = "tcp"
    ports    = ["9300-9400"]
  }
}

# row grafana
resource "google_compute_firewall" "grafana_in_tcp_v4" {
  name          = "portcullis-grafana-in-tcp-v4"
  network       = var.network
  description   = "row grafana"
  direction     = "INGRESS"
  priority      = 1000
  source_ranges = local.nodes_v4
  target_tags   = ["portcullis-node"]

  allow {
    protocol = "tcp"
    ports    = ["3000"]
  }
}

# row grafana
resource "google_compute_firewall" "grafana_in_tcp_v6" {
  name          = "portcullis-grafana-in-tcp-v6"
  network       = var.network
  description   = "row grafana"
  direction     = "INGRESS"
  priority      = 1000
  source_ranges = local.nodes_v6
  target_tags   = ["portcullis-node"]

  allow {
    protocol = "tcp"
    ports    = ["3000"]
  }
}

# row maintenance
resource "google_compute_firewall" "maintenance_in_tcp_v4" {
  name          = "portcullis-maintenance-in-tcp-v4"
  network       = var.network
  description   = "row maintenance"
  direction     = "INGRESS"
  priority      = 1000
  source_ranges = local.nodes_v4
  target_tags   = ["portcullis-node"]

  allow {
    protocol = "tcp"
    ports    = ["22"]
  }
}

# row maintenance
resource "google_compute_firewall" "maintenance_in_tcp_v6" {
  name          = "portcullis-maintenance-in-tcp-v6"
  network       = var.network
  description   = "row maintenance"
  direction     = "INGRESS"
  priority      = 1000
  source_ranges = local.nodes_v6
  target_tags   = ["portcullis-node"]

  allow {
    protocol = "tcp"
    ports    = ["22"]
  }
}

# row icmp
resource "google_compute_firewall" "icmp_in_icmp_v4" {
  name          = "portcullis-icmp-in-icmp-v4"
  network       = var.network
  description   = "row icmp"
  direction     = "INGRESS"
  priority      = 1000
  source_ranges = local.nodes_v4
  target_tags   = ["portcullis-node"]

  allow {
    protocol = "icmp"
  }
}

# row icmp
resource "google_compute_firewall" "icmp_in_icmp_v6" {
  name          = "portcullis-icmp-in-icmp-v6"
  network       = var.network
  description   = "row icmp"
  direction     = "INGRESS"
  priority      = 1000
  source_ranges = local.nodes_v6
  target_tags   = ["portcullis-node"]

  allow {
    protocol = "58"
  }
}

# row lb
resource "google_compute_firewall" "lb_in_tcp_v4" {
  name          = "portcullis-lb-in-tcp-v4"
  network       = var.network
  description   = "row lb"
  direction     = "INGRESS"
  priority      = 1000
  source_ranges = local.lb_v4
  target_tags   = ["portcullis-node"]

  allow {
    protocol = "tcp"
    ports    = ["80", "443", "4443"]
  }
}

# row lb
resource "google_compute_firewall" "lb_in_tcp_v6" {
  name          = "portcullis-lb-in-tcp-v6"
  network       = var.network
  description   = "row lb"
  direction     = "INGRESS"
  priority      = 1000
  source_ranges = local.lb_v6
  target_tags   = ["portcullis-node"]

  allow {
    protocol = "tcp"
    ports    = ["80", "443", "4443"]
  }
}

# row cli
resource "google_compute_firewall" "cli_in_tcp_v4" {
  name          = "portcullis-cli-in-tcp-v4"
  network       = var.network
  description   = "row cli"
  direction     = "INGRESS"
  priority      = 1000
  source_ranges = local.cli_v4
  target_tags   = ["portcullis-node"]

  allow {
    protocol = "tcp"
    ports    = ["10121"]
  }
}

# row jump-host
resource "google_compute_firewall" "jump_host_in_tcp_v4" {
  name          = "portcullis-jump-host-in-tcp-v4"
  network       = var.network
  description   = "row jump-host"
  direction     = "INGRESS"
  priority      = 1000
  source_ranges = local.jump_host_v4
  target_tags   = ["portcullis-node"]

  allow {
    protocol = "tcp"
    ports    = ["22"]
  }
}

# row health
resource "google_compute_firewall" "health_in_tcp_v4" {
  name          = "portcullis-health-in-tcp-v4"
  network       = var.network
  description   = "row health"
  direction     = "INGRESS"
  priority      = 1000
  source_ranges = local.monitoring_v4
  target_tags   = ["portcullis-node"]

  allow {
    protocol = "tcp"
    ports    = ["9110"]
  }
}

# row health
resource "google_compute_firewall" "health_in_tcp_v6" {
  name          = "portcullis-health-in-tcp-v6"
  network       = var.network
  description   = "row health"
  direction     = "INGRESS"
  priority      = 1000
  source_ranges = local.monitoring_v6
  target_tags   = ["portcullis-node"]

  allow {
    protocol = "tcp"
    ports    = ["9110"]
  }
}

# row dns
resource "google_compute_firewall" "dns_in_tcp_v4" {
  name          = "portcullis-dns-in-tcp-v4"
  network       = var.network
  description   = "row dns"
  direction     = "INGRESS"
  priority      = 1000
  source_ranges = local.dns_v4
  target_tags   = ["portcullis-node"]

  allow {
    protocol = "tcp"
    ports    = ["53"]
  }
}

# row dns
resource "google_compute_firewall" "dns_in_tcp_v6" {
  name          = "portcullis-dns-in-tcp-v6"
  network       = var.network
  description   = "row dns"
  direction     = "INGRESS"
  priority      = 1000
  source_ranges = local.dns_v6
  target_tags   = ["portcullis-node"]

  allow {
    protocol = "tcp"
    ports    = ["53"]
  }
}

# row dns
resource "google_compute_firewall" "dns_in_udp_v4" {
  name          = "portcullis-dns-in-udp-v4"
  network       = var.network
  description   = "row dns"
  direction     = "INGRESS"
  priority      = 1000
  source_ranges = local.dns_v4
  target_tags   = ["portcullis-node"]

  allow {
    protocol = "udp"
    ports    = ["53"]
  }
}

# row dns
resource "google_compute_firewall" "dns_in_udp_v6" {
  name          = "portcullis-dns-in-udp-v6"
  network       = var.network
  description   = "row dns"
  direction     = "INGRESS"
  priority      = 1000
  source_ranges = local.dns_v6
  target_tags   = ["portcullis-node"]

  allow {
    protocol = "udp"
    ports    = ["53"]
  }
}

# row database
resource "google_compute_firewall" "database_out_tcp_v4" {
  name               = "portcullis-database-out-tcp-v4"
  network            = var.network
  description        = "row database"
  direction          = "EGRESS"
  priority           = 1000
  destination_ranges = local.nodes_v4
  target_tags        = ["portcullis-node"]

  allow {
    protocol = "tcp"
    ports    = ["27017"]
  }
}

# row database
resource "google_compute_firewall" "database_out_tcp_v6" {
  name               = "portcullis-database-out-tcp-v6"
  network            = var.network
  description        = "row database"
  direction          = "EGRESS"
  priority           = 1000
  destination_ranges = local.nodes_v6
  target_tags        = ["portcullis-node"]

  allow {
    protocol = "tcp"
    ports    = ["27017"]
  }
}

# row control
resource "google_compute_firewall" "control_out_tcp_v4" {
  name               = "portcullis-control-out-tcp-v4"
  network            = var.network
  description        = "row control"
  direction          = "EGRESS"
  priority           = 1000
  destination_ranges = local.nodes_v4
  target_tags        = ["portcullis-node"]

  allow {
    protocol = "tcp"
    ports    = ["7777"]
  }
}

# row control
resource "google_compute_firewall" "control_out_tcp_v6" {
  name               = "portcullis-control-out-tcp-v6"
  network            = var.network
  description        = "row control"
  direction          = "EGRESS"
  priority           = 1000
  destination_ranges = local.nodes_v6
  target_tags        = ["portcullis-node"]

  allow {
    protocol = "tcp"
    ports    = ["7777"]
  }
}

# row rate-limit
resource "google_compute_firewall" "rate_limit_out_tcp_v4" {
  name               = "portcullis-rate-limit-out-tcp-v4"
  network            = var.network
  description        = "row rate-limit"
  direction          = "EGRESS"
  priority           = 1000
  destination_ranges = local.nodes_v4
  target_tags        = ["portcullis-node"]

  allow {
    protocol = "tcp"
    ports    = ["9001"]
  }
}

# row rate-limit
resource "google_compute_firewall" "rate_limit_out_tcp_v6" {
  name               = "portcullis-rate-limit-out-tcp-v6"
  network            = var.network
  description        = "row rate-limit"
  direction          = "EGRESS"
  priority           = 1000
  destination_ranges = local.nodes_v6
  target_tags        = ["portcullis-node"]

  allow {
    protocol = "tcp"
    ports    = ["9001"]
  }
}

# row webtask-logs
resource "google_compute_firewall" "webtask_logs_out_tcp_v4" {
  name               = "portcullis-webtask-logs-out-tcp-v4"
  network            = var.network
  description        = "row webtask-logs"
  direction          = "EGRESS"
  priority           = 1000
  destination_ranges = local.nodes_v4
  target_tags        = ["portcullis-node"]

  allow {
    protocol = "tcp"
    ports    = ["8721"]
  }
}

# row webtask-logs
resource "google_compute_firewall" "webtask_logs_out_tcp_v6" {
  name               = "portcullis-webtask-logs-out-tcp-v6"
  network            = var.network
  description        = "row webtask-logs"
  direction          = "EGRESS"
  priority           = 1000
  destination_ranges = local.nodes_v6
  target_tags        = ["portcullis-node"]

  allow {
    protocol = "tcp"
    ports    = ["8721"]
  }
}

# row webtask-control
resource "google_compute_firewall" "webtask_control_out_tcp_v4" {
  name               = "portcullis-webtask-control-out-tcp-v4"
  network            = var.network
  description        = "row webtask-control"
  direction          = "EGRESS"
  priority           = 1000
  destination_ranges = local.nodes_v4
  target_tags        = ["portcullis-node"]

  allow {
    protocol = "tcp"
    ports    = ["8701"]
  }
}

# row webtask-control
resource "google_compute_firewall" "webtask_control_out_tcp_v6" {
  name               = "portcullis-webtask-control-out-tcp-v6"
  network            = var.network
  description        = "row webtask-control"
  direction          = "EGRESS"
  priority           = 1000
  destination_ranges = local.nodes_v6
  target_tags        = ["portcullis-node"]

  allow {
    protocol = "tcp"
    ports    = ["8701"]
  }
}

# row search-http
resource "google_compute_firewall" "search_http_out_tcp_v4" {
  name               = "portcullis-search-http-out-tcp-v4"
  network            = var.network
  description        = "row search-http"
  direction          = "EGRESS"
  priority           = 1000
  destination_ranges = local.nodes_v4
  target_tags        = ["portcullis-node"]

  allow {
    protocol = "tcp"
    ports    = ["9200"]
  }
}

# row search-http
resource "google_compute_firewall" "search_http_out_tcp_v6" {
  name               = "portcullis-search-http-out-tcp-v6"
  network            = var.network
  description        = "row search-http"
  direction          = "EGRESS"
  priority           = 1000
  destination_ranges = local.nodes_v6
  target_tags        = ["portcullis-node"]

  allow {
    protocol = "tcp"
    ports    = ["9200"]
  }
}

# row search-transport
resource "google_compute_firewall" "search_transport_out_tcp_v4" {
  name               = "portcullis-search-transport-out-tcp-v4"
  network            = var.network
  description        = "row search-transport"
  direction          = "EGRESS"
  priority           = 1000
  destination_ranges = local.nodes_v4
  target_tags        = ["portcullis-node"]

  allow {
    protocol = "tcp"
    ports    = ["9300-9400"]
  }
}

# row search-transport
resource "google_compute_firewall" "search_transport_out_tcp_v6" {
  name               = "portcullis-search-transport-out-tcp-v6"
  network            = var.network
  description        = "row search-transport"
  direction          = "EGRESS"
  priority           = 1000
  destination_ranges = local.nodes_v6
  target_tags        = ["portcullis-node"]

  allow {
    protocol = "tcp"
    ports    = ["9300-9400"]
  }
}

# row grafana
resource "google_compute_firewall" "grafana_out_tcp_v4" {
  name               = "portcullis-grafana-out-tcp-v4"
  network            = var.network
  description        = "row grafana"
  direction          = "EGRESS"
  priority           = 1000
  destination_ranges = local.nodes_v4
  target_tags        = ["portcullis-node"]

  allow {
    protocol = "tcp"
    ports    = ["3000"]
  }
}

# row grafana
resource "google_compute_firewall" "grafana_out_tcp_v6" {
  name               = "portcullis-grafana-out-tcp-v6"
  network            = var.network
  description        = "row grafana"
  direction          = "EGRESS"
  priority           = 1000
  destination_ranges = local.nodes_v6
  target_tags        = ["portcullis-node"]

  allow {
    protocol = "tcp"
    ports    = ["3000"]
  }
}

# row maintenance
resource "google_compute_firewall" "maintenance_out_tcp_v4" {
  name               = "portcullis-maintenance-out-tcp-v4"
  network            = var.network
  description        = "row maintenance"
  direction          = "EGRESS"
  priority           = 1000
  destination_ranges = local.nodes_v4
  target_tags        = ["portcullis-node"]

  allow {
    protocol = "tcp"
    ports    = ["22"]
  }
}

# row maintenance
resource "google_compute_firewall" "maintenance_out_tcp_v6" {
  name               = "portcullis-maintenance-out-tcp-v6"
  network            = var.network
  description        = "row maintenance"
  direction          = "EGRESS"
  priority           = 1000
  destination_ranges = local.nodes_v6
  target_tags        = ["portcullis-node"]

  allow {
    protocol = "tcp"
    ports    = ["22"]
  }
}

# row icmp
resource "google_compute_firewall" "icmp_out_icmp_v4" {
  name               = "portcullis-icmp-out-icmp-v4"
  network            = var.network
  description        = "row icmp"
  direction          = "EGRESS"
  priority           = 1000
  destination_ranges = local.nodes_v4
  target_tags        = ["portcullis-node"]

  allow {
    protocol = "icmp"
  }
}

# row icmp
resource "google_compute_firewall" "icmp_out_icmp_v6" {
  name               = "portcullis-icmp-out-icmp-v6"
  network            = var.network
  description        = "row icmp"
  direction          = "EGRESS"
  priority           = 1000
  destination_ranges = local.nodes_v6
  target_tags        = ["portcullis-node"]

  allow {
    protocol = "58"
  }
}

# row webtask-callback
resource "google_compute_firewall" "webtask_callback_out_tcp_v4" {
  name               = "portcullis-webtask-callback-out-tcp-v4"
  network            = var.network
  description        = "row webtask-callback"
  direction          = "EGRESS"
  priority           = 1000
  destination_ranges = local.lb_v4
  target_tags        = ["portcullis-node"]

  allow {
    protocol = "tcp"
    ports    = ["443"]
  }
}

# row webtask-callback
resource "google_compute_firewall" "webtask_callback_out_tcp_v6" {
  name               = "portcullis-webtask-callback-out-tcp-v6"
  network            = var.network
  description        = "row webtask-callback"
  direction          = "EGRESS"
  priority           = 1000
  destination_ranges = local.lb_v6
  target_tags        = ["portcullis-node"]

  allow {
    protocol = "tcp"
    ports    = ["443"]
  }
}

# row cli
resource "google_compute_firewall" "cli_out_tcp_v4" {
  name               = "portcullis-cli-out-tcp-v4"
  network            = var.network
  description        = "row cli"
  direction          = "EGRESS"
  priority           = 1000
  destination_ranges = local.cli_v4
  target_tags        = ["portcullis-node"]

  allow {
    protocol = "tcp"
    ports    = ["10121"]
  }
}

# row update-packages
resource "google_compute_firewall" "update_packages_out_tcp_v4" {
  name               = "portcullis-update-packages-out-tcp-v4"
  network            = var.network
  description        = "row update-packages"
  direction          = "EGRESS"
  priority           = 1000
  destination_ranges = local.depot_v4
  target_tags        = ["portcullis-node"]

  allow {
    protocol = "tcp"
    ports    = ["80", "443"]
  }
}

# row update-packages
resource "google_compute_firewall" "update_packages_out_tcp_v6" {
  name               = "portcullis-update-packages-out-tcp-v6"
  network            = var.network
  description        = "row update-packages"
  direction          = "EGRESS"
  priority           = 1000
  destination_ranges = local.depot_v6
  target_tags        = ["portcullis-node"]

  allow {
    protocol = "tcp"
    ports    = ["80", "443"]
  }
}

# row update-images
resource "google_compute_firewall" "update_images_out_tcp_v4" {
  name               = "portcullis-update-images-out-tcp-v4"
  network            = var.network
  description        = "row update-images"
  direction          = "EGRESS"
  priority           = 1000
  destination_ranges = local.depot_v4
  target_tags        = ["portcullis-node"]

  allow {
    protocol = "tcp"
    ports    = ["443"]
  }
}

# row update-images
resource "google_compute_firewall" "update_images_out_tcp_v6" {
  name               = "portcullis-update-images-out-tcp-v6"
  network            = var.network
  description        = "row update-images"
  direction          = "EGRESS"
  priority           = 1000
  destination_ranges = local.depot_v6
  target_tags        = ["portcullis-node"]

  allow {
    protocol = "tcp"
    ports    = ["443"]
  }
}

# row cdn
resource "google_compute_firewall" "cdn_out_tcp_v4" {
  name               = "portcullis-cdn-out-tcp-v4"
  network            = var.network
  description        = "row cdn"
  direction          = "EGRESS"
  priority           = 1000
  destination_ranges = local.depot_v4
  target_tags        = ["portcullis-node"]

  allow {
    protocol = "tcp"
    ports    = ["443"]
  }
}

# row cdn
resource "google_compute_firewall" "cdn_out_tcp_v6" {
  name               = "portcullis-cdn-out-tcp-v6"
  network            = var.network
  description        = "row cdn"
  direction          = "EGRESS"
  priority           = 1000
  destination_ranges = local.depot_v6
  target_tags        = ["portcullis-node"]

  allow {
    protocol = "tcp"
    ports    = ["443"]
  }
}

# row examples
resource "google_compute_firewall" "examples_out_tcp_v4" {
  name               = "portcullis-examples-out-tcp-v4"
  network            = var.network
  description        = "row examples"
  direction          = "EGRESS"
  priority           = 1000
  destination_ranges = local.depot_v4
  target_tags        = ["portcullis-node"]

  allow {
    protocol = "tcp"
    ports    = ["443"]
  }
}

# row examples
resource "google_compute_firewall" "examples_out_tcp_v6" {
  name               = "portcullis-examples-out-tcp-v6"
  network            = var.network
  description        = "row examples"
  direction          = "EGRESS"
  priority           = 1000
  destination_ranges = local.depot_v6
  target_tags        = ["portcullis-node"]

  allow {
    protocol = "tcp"
    ports    = ["443"]
  }
}

# row telemetry
resource "google_compute_firewall" "telemetry_out_tcp_v4" {
  name               = "portcullis-telemetry-out-tcp-v4"
  network            = var.network
  description        = "row telemetry"
  direction          = "EGRESS"
  priority           = 1000
  destination_ranges = local.depot_v4
  target_tags        = ["portcullis-node"]

  allow {
    protocol = "tcp"
    ports    = ["443"]
  }
}

# row telemetry
resource "google_compute_firewall" "telemetry_out_tcp_v6" {
  name               = "portcullis-telemetry-out-tcp-v6"
  network            = var.network
  description        = "row telemetry"
  direction          = "EGRESS"
  priority           = 1000
  destination_ranges = local.depot_v6
  target_tags        = ["portcullis-node"]

  allow {
    protocol = "tcp"
    ports    = ["443"]
  }
}

# row dns
resource "google_compute_firewall" "dns_out_tcp_v4" {
  name               = "portcullis-dns-out-tcp-v4"
  network            = var.network
  description        = "row dns"
  direction          = "EGRESS"
  priority           = 1000
  destination_ranges = local.dns_v4
  target_tags        = ["portcullis-node"]

  allow {
    protocol = "tcp"
    ports    = ["53"]
  }
}

# row dns
resource "google_compute_firewall" "dns_out_tcp_v6" {
  name               = "portcullis-dns-out-tcp-v6"
  network            = var.network
  description        = "row dns"
  direction          = "EGRESS"
  priority           = 1000
  destination_ranges = local.dns_v6
  target_tags        = ["portcullis-node"]

  allow {
    protocol = "tcp"
    ports    = ["53"]
  }
}

# row dns
resource "google_compute_firewall" "dns_out_udp_v4" {
  name               = "portcullis-dns-out-udp-v4"
  network            = var.network
  description        = "row dns"
  direction          = "EGRESS"
  priority           = 1000
  destination_ranges = local.dns_v4
  target_tags        = ["portcullis-node"]

  allow {
    protocol = "udp"
    ports    = ["53"]
  }
}

# row dns
resource "google_compute_firewall" "dns_out_udp_v6" {
  name               = "portcullis-dns-out-udp-v6"
  network            = var.network
  description        = "row dns"
  direction          = "EGRESS"
  priority           = 1000
  destination_ranges = local.dns_v6
  target_tags        = ["portcullis-node"]

  allow {
    protocol = "udp"
    ports    = ["53"]
  }
}

# row social
resource "google_compute_firewall" "social_out_tcp_v4" {
  name               = "portcullis-social-out-tcp-v4"
  network            = var.network
  description        = "row social"
  direction          = "EGRESS"
  priority           = 1000
  destination_ranges = local.providers_v4
  target_tags        = ["portcullis-node"]

  allow {
    protocol = "tcp"
    ports    = ["443"]
  }
}

# row smtp
resource "google_compute_firewall" "smtp_out_tcp_v4" {
  name               = "portcullis-smtp-out-tcp-v4"
  network            = var.network
  description        = "row smtp"
  direction          = "EGRESS"
  priority           = 1000
  destination_ranges = local.smtp_v4
  target_tags        = ["portcullis-node"]

  allow {
    protocol = "tcp"
    ports    = ["25", "465", "587"]
  }
}

# row traces
resource "google_compute_firewall" "traces_out_tcp_v4" {
  name               = "portcullis-traces-out-tcp-v4"
  network            = var.network
  description        = "row traces"
  direction          = "EGRESS"
  priority           = 1000
  destination_ranges = local.traces_v4
  target_tags        = ["portcullis-node"]

  allow {
    protocol = "tcp"
    ports    = ["4318"]
  }
}

# no row
resource "google_compute_firewall" "drop_in_v4" {
  name          = "portcullis-drop-in-v4"
  network       = var.network
  description   = "no row"
  direction     = "INGRESS"
  priority      = 65000
  source_ranges = ["0.0.0.0/0"]
  target_tags   = ["portcullis-node"]

  deny {
    protocol = "all"
  }
}

# no row
resource "google_compute_firewall" "drop_in_v6" {
  name          = "portcullis-drop-in-v6"
  network       = var.network
  description   = "no row"
  direction     = "INGRESS"
  priority      = 65000
  source_ranges = ["::/0"]
  target_tags   = ["portcullis-node"]

  deny {
    protocol = "all"
  }
}

# no row
resource "google_compute_firewall" "drop_out_v4" {
  name               = "portcullis-drop-out-v4"
  network            = var.network
  description        = "no row"
  direction          = "EGRESS"
  priority           = 65000
  destination_ranges = ["0.0.0.0/0"]
  target_tags        = ["portcullis-node"]

  deny {
    protocol = "all"
  }
}

# no row
resource "google_compute_firewall" "drop_out_v6" {
  name               = "portcullis-drop-out-v6"
  network            = var.network
  description        = "no row"
  direction          = "EGRESS"
  priority           = 65000
  destination_ranges = ["::/0"]
  target_tags        = ["portcullis-node"]

  deny {
    protocol = "all"
  }
}
